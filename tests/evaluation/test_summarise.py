from __future__ import annotations

from collections.abc import Callable

import pytest

from strokeseg.evaluation.scoring import CaseResult
from strokeseg.evaluation.summarise import (
    by_size,
    disagreement_of,
    methods_of,
    paired_tests,
    signed_rank_p,
)
from strokeseg.records.summary import ScoreRow

Make = Callable[..., ScoreRow]


def test_a_method_has_mean_median_and_quartiles(score_row: Make) -> None:
    rows = [
        score_row(case, "vote", dice=dice)
        for case, dice in zip("abcd", (0, 0.2, 0.4, 1), strict=True)
    ]
    dice = methods_of(rows)["vote"]["metrics"]["dice"]
    # Of 0, 0.2, 0.4, 1: quartiles a quarter of the way into the first and last gap but one.
    expected = {"mean": 0.4, "median": 0.3, "q1": 0.15, "q3": 0.55, "cases": 4}
    assert {name: dice[name] for name in expected} == pytest.approx(expected)
    assert 0 <= dice["low"] < 0.4 < dice["high"] <= 1


def test_undefined_values_stay_out_of_means_and_are_counted(score_row: Make) -> None:
    rows = [
        score_row("a", "vote", hd95_mm=4.0),
        score_row("b", "vote", hd95_mm=None),
        score_row("c", "vote", hd95_mm=8.0),
    ]
    found = methods_of(rows)["vote"]
    assert found["cases"] == 3
    assert (found["metrics"]["hd95_mm"]["mean"], found["metrics"]["hd95_mm"]["cases"]) == (6.0, 2)


def test_a_metric_that_no_case_defines_is_nothing(score_row: Make) -> None:
    found = methods_of([score_row("a", "vote", dice=None)])["vote"]["metrics"]["dice"]
    assert found == {
        **dict.fromkeys(("mean", "median", "q1", "q3", "low", "high")),
        "cases": 0,
    }


def test_one_patient_has_a_mean_but_no_interval(score_row: Make) -> None:
    rows = [score_row("a1", "vote", dice=0.4), score_row("a2", "vote", dice=0.6)]
    dice = methods_of(rows)["vote"]["metrics"]["dice"]
    assert (dice["mean"], dice["low"], dice["high"]) == (0.5, None, None)


def test_lesions_and_missed_cases_are_added_up(score_row: Make) -> None:
    counts = {"true_lesions": 3, "predicted_lesions": 2, "missed_lesions": 2, "false_lesions": 1}
    rows = [score_row("a", "vote", **counts), score_row("b", "vote", true_lesions=1, missed=1)]
    found = methods_of(rows)["vote"]
    assert found["lesions"] == {"true": 4, "predicted": 2, "missed": 2, "false": 1}
    assert found["missed_cases"] == 1


def test_bins_of_size_hold_their_lower_end_and_empty_ones_are_left_out(score_row: Make) -> None:
    sizes = {"a": 0.0, "b": 4.99, "c": 5.0, "d": 50.0, "e": 300.0}
    rows = [
        score_row(case, method, true_ml=size, dice=0.5)
        for case, size in sizes.items()
        for method in ("axial", "vote")
    ]
    bins = [(found["low_ml"], found["high_ml"], found["cases"]) for found in by_size(rows)]
    assert bins == [(0.0, 5.0, 2), (5.0, 20.0, 1), (50.0, None, 2)]
    assert by_size(rows)[0]["methods"]["axial"]["dice"]["mean"] == 0.5


def test_the_vote_is_tested_against_axes_and_baselines_patient_by_patient(score_row: Make) -> None:
    # Patient a has two cases; the mean differences of patients are 0.2, 0.1 and 0.3.
    gains = {"a1": 0.3, "a2": 0.1, "b": 0.1, "c": 0.3}
    rows = [score_row(case, "vote", dice=0.5 + gain) for case, gain in gains.items()]
    rows += [score_row(case, "axial", "axis", dice=0.5) for case in gains]
    rows += [score_row(case, "nnunet", "baseline", dice=0.5) for case in ("a1", "b")]
    rows += [score_row(case, "vote_hard", dice=0.5) for case in gains]
    axis, baseline = paired_tests(rows)
    assert (axis["first"], axis["second"], axis["metric"]) == ("vote", "axial", "dice")
    assert (axis["cases"], axis["patients"]) == (4, 3)
    assert axis["mean_difference"] == pytest.approx(0.2)
    # All three patients gain: one of the 8 ways to sign them, on each of two sides.
    assert axis["p"] == pytest.approx(2 / 8)
    assert axis["low"] > 0
    assert (baseline["second"], baseline["cases"]) == ("nnunet", 2)


def test_pretrained_is_tested_against_scratch(score_row: Make) -> None:
    rows = [score_row("a", f"vote_{name}", "comparison") for name in ("pretrained", "scratch")]
    (test,) = paired_tests(rows)
    assert (test["first"], test["second"], test["p"]) == ("vote_pretrained", "vote_scratch", 1.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # All n of one sign: one way of 2 ** n on each side.
        ([1, 2, 3], 2 / 8),
        ([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6], 2 / 64),
        # 0 is left out: two differences are left.
        ([1, 0, 2], 2 / 4),
        # Positive ranks sum to 3 of 6; 5 of the 8 ways give 3 or less, as many 3 or more.
        ([1, 2, -3], 1.0),
        # Ranks 1, 2.5, 2.5, 4; the positive ones sum to 9 of 10: only 9 and 10 reach that.
        ([-1, 2, 2, 3], 2 * 2 / 16),
        # One difference says as little as none.
        ([1], 1.0),
        ([], 1.0),
        ([0, 0], 1.0),
        # 0 on paper, 5.6e-17 in floats.
        ([0.1 + 0.2 - 0.3], 1.0),
    ],
)
def test_p_is_the_share_of_signs_that_are_as_lopsided(differences: list[float], p: float) -> None:
    assert signed_rank_p(differences) == pytest.approx(p, abs=1e-12)


def result(mean_disagreement: float | None, auroc: float | None = None) -> CaseResult:
    return CaseResult(rows=(), mean_disagreement=mean_disagreement, auroc=auroc)


def test_disagreement_that_grows_with_error_correlates(score_row: Make) -> None:
    rows = [
        score_row(case, "vote", dice=dice)
        for case, dice in zip("abc", (0.9, 0.5, 0.1), strict=True)
    ]
    found = disagreement_of(rows, {"a": result(0.1, 0.8), "b": result(0.2), "c": result(0.6, 0.6)})
    assert found["spearman"]["rho"] == pytest.approx(1.0)
    assert found["spearman"]["cases"] == 3
    assert found["voxel"] == {"mean_auroc": pytest.approx(0.7), "cases": 2}
    first = {"case": "a", "mean_disagreement": 0.1, "auroc": 0.8, "dice": 0.9}
    assert found["cases"][0] == first


def test_a_case_in_which_no_axis_finds_anything_has_no_disagreement(score_row: Make) -> None:
    rows = [
        score_row(case, "vote", dice=dice)
        for case, dice in zip("abcd", (0.9, 0.5, 0.1, 0.0), strict=True)
    ]
    unsure = (0.1, 0.2, 0.6, None)
    found = disagreement_of(rows, dict(zip("abcd", map(result, unsure), strict=True)))
    assert found["spearman"]["cases"] == 3
    assert found["cases"][3]["mean_disagreement"] is None


@pytest.mark.parametrize("unsure", [(0.1, 0.2), (0.3, 0.3, 0.3)])
def test_no_correlation_is_claimed_of_few_or_equal_cases(
    score_row: Make, unsure: tuple[float, ...]
) -> None:
    names = "abc"[: len(unsure)]
    rows = [score_row(case, "vote", dice=0.1 * at) for at, case in enumerate(names)]
    found = disagreement_of(rows, dict(zip(names, map(result, unsure), strict=True)))
    assert found["spearman"] == {"rho": None, "p": None, "cases": len(unsure)}
