"""The Dice of a choice from evidence, against the Dice of whole masks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.sparse_map import pack
from strokeseg.records.ensemble import Rule
from strokeseg.selection.scores import Choice, Evidence, PatientScores, dice_of, gather_evidence

SPACING_MM = (1.0, 2.0, 3.0)
MEMBERS = (("axial", "a"), ("axial", "b"), ("coronal", "c"), ("sagittal", "d"))


def _maps(seed: int) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.uint8]]:
    """Four candidates that see a box of lesion, and specks of their own, through noise."""
    generator = np.random.default_rng(seed)
    truth = np.zeros((20, 22, 18), dtype=np.uint8)
    truth[4:12, 5:13, 6:11] = 1
    maps = {
        name: np.clip(
            0.55 * truth
            + 0.5 * (generator.random(truth.shape) > 0.97)
            + generator.normal(0, 0.12, truth.shape),
            0,
            1,
        ).astype(np.float32)
        for name in ("a", "b", "c", "d")
    }
    return maps, truth


@pytest.mark.parametrize(
    ("within", "between", "threshold", "smallest"),
    list(
        product(
            ("mean", "vote"),
            ("hard", "soft"),
            (0.1, 0.5, 0.9),
            (0.0, 20.0),
        )
    ),
)
def test_evidence_scores_as_the_ballot_over_whole_maps_does(
    within: str, between: str, threshold: float, smallest: float
) -> None:
    exact, truth = _maps(0)
    maps = {name: pack(probability) for name, probability in exact.items()}
    rule = Rule.model_validate(
        {
            "within": within,
            "between": between,
            "threshold": threshold,
            "smallest_lesion_mm3": smallest,
        }
    )
    ballot = rule.ballot()
    for axis, name in MEMBERS:
        ballot.add(axis, maps[name].dense())
    mask = ballot.decide(SPACING_MM).mask
    expected = score_masks(truth, mask, SPACING_MM).dice
    evidence = gather_evidence("p", maps, truth, SPACING_MM, lowest_threshold=0.1)
    assert dice_of(Choice(members=MEMBERS, rule=rule), evidence) == expected


def test_evidence_is_small_where_candidates_see_nothing() -> None:
    probability = np.zeros((10, 10, 10), dtype=np.float32)
    probability[2:4, 5, 7] = 0.6
    truth = np.zeros((10, 10, 10), dtype=np.uint8)
    truth[3:5, 5, 7] = 1
    evidence = gather_evidence("p", {"a": pack(probability)}, truth, SPACING_MM, 0.1)
    assert (evidence.box, evidence.true_voxels) == ((2, 1, 1), 2)
    choice = Choice(members=(("axial", "a"),), rule=Rule())
    # One hit, two voxels in each mask.
    assert dice_of(choice, evidence) == 2 * 1 / (2 + 2)


@pytest.mark.parametrize(("true_voxels", "dice"), [(0, 1.0), (1, 0.0)])
def test_no_prediction_is_right_only_where_there_is_no_lesion(
    true_voxels: int, dice: float
) -> None:
    maps = {"a": pack(np.zeros((4, 4, 4), dtype=np.float32))}
    truth = np.zeros((4, 4, 4), dtype=np.uint8)
    truth.ravel()[:true_voxels] = 1
    evidence = gather_evidence("p", maps, truth, SPACING_MM, lowest_threshold=0.1)
    rule = Rule(smallest_lesion_mm3=5.0)
    assert dice_of(Choice(members=(("axial", "a"),), rule=rule), evidence) == dice


def test_the_cases_of_a_patient_count_as_one() -> None:
    def case(patient: str, *, found: bool) -> Evidence:
        truth = np.ones((2, 2, 2), dtype=np.uint8)
        probability = np.full((2, 2, 2), 0.9 if found else 0.2, dtype=np.float32)
        return gather_evidence(patient, {"a": pack(probability)}, truth, SPACING_MM, 0.1)

    scores = PatientScores([case("p", found=True), case("q", found=True), case("p", found=False)])
    assert scores.patients == ("p", "q")
    assert scores.of(Choice(members=(("axial", "a"),), rule=Rule())).tolist() == [0.5, 1.0]
