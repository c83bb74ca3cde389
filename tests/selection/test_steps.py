"""Steps from the vote as it starts, on patients whose Dice is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from strokeseg.imaging.slices import AXES
from strokeseg.imaging.sparse_map import pack
from strokeseg.records.ensemble import Rule
from strokeseg.selection.options import STEPS, best_of_each_axis
from strokeseg.selection.scores import Choice, Evidence, PatientScores, gather_evidence
from strokeseg.selection.steps import leave_each_out, take_steps

ONE_EACH = {axis: (f"{axis}-0",) for axis in AXES}
TWO_EACH = {axis: (f"{axis}-0", f"{axis}-1") for axis in AXES}
SPACING_MM = (2.0, 2.0, 2.0)


def start(candidates: Mapping[str, Sequence[str]]) -> Choice:
    return Choice(members=best_of_each_axis(candidates, 1), rule=Rule())


def patient(name: str, candidates: Sequence[str], inside: float, speck: float = 0.0) -> Evidence:
    """A lesion of 64 voxels in which all see `inside`, and one voxel far off with `speck`."""
    truth = np.zeros((12, 12, 12), dtype=np.uint8)
    truth[2:6, 2:6, 2:6] = 1
    probability = (truth * np.float32(inside)).astype(np.float32)
    probability[10, 10, 10] = speck
    maps = dict.fromkeys(candidates, pack(probability))
    return gather_evidence(name, maps, truth, SPACING_MM, 0.1)


def scores_of(count: int, candidates: Mapping[str, Sequence[str]], **what: float) -> PatientScores:
    names = [name for of_axis in candidates.values() for name in of_axis]
    return PatientScores([patient(f"p{number}", names, **what) for number in range(count)])


@pytest.mark.parametrize(
    ("patients", "method", "taken"),
    # Every patient gains alike, so p is 1 / 2^patients: 1/16 is above 0.05, 1/32 is not.
    [(4, "guard", False), (5, "guard", True), (4, "best", True), (1, "best", True)],
)
def test_a_threshold_that_is_too_high_is_lowered_where_patients_are_enough(
    patients: int, method: str, taken: bool
) -> None:
    scores = scores_of(patients, ONE_EACH, inside=0.4)
    chosen, steps = take_steps(scores, start(ONE_EACH), ONE_EACH, method)
    (step,) = [step for step in steps if step.name == "threshold"]
    assert (step.dice_before, step.dice_after, step.gain) == (0.0, 1.0, 1.0)
    assert step.p == 1 / 2**patients
    # 0.1 to 0.9 in steps of 0.05, less the 0.5 that there is.
    assert step.tried == 16
    assert step.taken is taken
    # The first of the thresholds that are all as good.
    assert chosen.rule.threshold == (0.1 if taken else 0.5)


def test_a_speck_is_dropped_by_the_smallest_lesion_that_does() -> None:
    scores = scores_of(6, ONE_EACH, inside=0.9, speck=0.95)
    chosen, steps = take_steps(scores, start(ONE_EACH), ONE_EACH, "guard")
    step = steps[-1]
    # 64 voxels of 64 are found and one beside them: 2 * 64 / (64 + 65).
    assert step.dice_before == pytest.approx(128 / 129)
    # A voxel has 8 mm³: the first size above that is 10.
    assert (step.best, step.dice_after, step.taken) == ("10 mm³", 1.0, True)
    assert chosen.rule == Rule(smallest_lesion_mm3=10.0)


def test_nothing_is_taken_where_nothing_is_better() -> None:
    scores = scores_of(6, TWO_EACH, inside=0.9)
    for method in ("guard", "best"):
        chosen, steps = take_steps(scores, start(TWO_EACH), TWO_EACH, method)
        assert chosen == start(TWO_EACH)
        assert [step.name for step in steps] == list(STEPS)
        assert not any(step.taken for step in steps)
        assert {step.gain for step in steps if step.name != "threshold"} == {0.0}


def test_steps_see_only_the_patients_that_decide() -> None:
    # One needs a lower threshold, the other five a higher one against their specks.
    names = [name for of_axis in ONE_EACH.values() for name in of_axis]
    needy = patient("needy", names, inside=0.3)
    others = [patient(f"p{n}", names, inside=0.9, speck=0.7) for n in range(5)]
    scores = PatientScores([needy, *others])
    alone, _ = take_steps(scores, start(ONE_EACH), ONE_EACH, "best", patients=[0])
    assert scores.of(alone)[0] == 1.0
    without, _ = take_steps(scores, start(ONE_EACH), ONE_EACH, "best", patients=[1, 2, 3, 4, 5])
    assert scores.of(without).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_patients_left_out_are_scored_by_what_the_others_chose() -> None:
    names = [name for of_axis in ONE_EACH.values() for name in of_axis]
    # One of two needs a threshold of 0.3 at most; a speck of 0.7 beside 64 voxels hurts the
    # other one by 1/129.
    evidence = [
        patient("needy", names, inside=0.3),
        patient("clean", names, inside=0.9, speck=0.7),
    ]
    scores = PatientScores(evidence)
    left_out = leave_each_out(scores, start(ONE_EACH), ONE_EACH, "best")
    assert left_out is not None
    assert left_out.start == pytest.approx((0.0 + 128 / 129) / 2)
    # What the clean one chooses (0.75) leaves the needy one at 0; what the needy one chooses
    # (a low threshold) leaves the speck.
    assert left_out.chosen == pytest.approx((0.0 + 128 / 129) / 2)
    assert leave_each_out(PatientScores(evidence[:1]), start(ONE_EACH), ONE_EACH, "best") is None


def test_patients_are_not_left_out_of_so_few_that_the_others_cannot_support_a_step() -> None:
    names = [name for of_axis in ONE_EACH.values() for name in of_axis]
    evidence = [patient(f"p{n}", names, inside=0.3) for n in range(6)]
    # The smallest p of four patients is 1/16, that of five 1/32.
    assert leave_each_out(PatientScores(evidence[:5]), start(ONE_EACH), ONE_EACH, "guard") is None
    left_out = leave_each_out(PatientScores(evidence), start(ONE_EACH), ONE_EACH, "guard")
    assert left_out is not None
    assert (left_out.start, left_out.chosen) == (0.0, 1.0)


def test_members_an_axis_are_counted_from_one_to_all() -> None:
    candidates = {"axial": ("a0", "a1", "a2"), "coronal": ("c0",), "sagittal": ("s0", "s1")}
    options = list(STEPS["members an axis"](start(candidates), candidates))
    assert [option.words for option in options] == [
        *("1 an axis", "2 an axis, mean within it", "2 an axis, vote within it"),
        *("3 an axis, mean within it", "3 an axis, vote within it"),
    ]
    assert [len(option.choice.members) for option in options] == [3, 5, 5, 6, 6]
