"""What the scores of all cases say together: means, intervals, tests, and what disagreement tells.

A *statistic* is `mean`, `median`, `q1`, `q3` (quartiles), `low` and `high` (the interval of the
mean, see `intervals`) and `cases`, over how many. Values that are not defined are left out; all
but `cases` are None where no value is left, and the interval also with fewer than two
patients. A *test* compares two methods on the cases that both have, patient by patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import spearmanr, wilcoxon

from strokeseg.evaluation.intervals import CONFIDENCE, RESAMPLES, SEED, mean_interval
from strokeseg.evaluation.scoring import CaseResult
from strokeseg.records.summary import METRICS, VOTE, ScoreRow

BOOTSTRAP = {"samples": RESAMPLES, "seed": SEED, "confidence": CONFIDENCE}

_TEST = "Wilcoxon signed-rank over patients, two-sided"
# Differences of floats that are equal on paper differ in the last digits.
_DECIMALS = 12
_TESTED = "dice"
# Lower ends in ml; each bin ends where the next begins, which it leaves out.
_SIZES_ML = (0.0, 5.0, 20.0, 50.0)
_FEWEST_CASES_OF_A_RANK_CORRELATION = 3


def methods_of(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Return what each method scored, in the order in which the rows name them.

    Returns:
        By method: `kind`, `cases`, `metrics` (a statistic each), `lesions` (`true`, `predicted`,
        `missed` and `false`, all cases together) and `missed_cases`, those of which one mask was
        empty and the other was not.
    """
    return {
        method: {
            "kind": of_method[0].kind,
            "cases": len(of_method),
            "metrics": {metric: _statistic(of_method, metric) for metric in METRICS},
            "lesions": {
                name: _total(of_method, f"{name}_lesions")
                for name in ("true", "predicted", "missed", "false")
            },
            "missed_cases": _total(of_method, "missed"),
        }
        for method, of_method in _by_method(rows).items()
    }


def by_size(rows: Sequence[ScoreRow]) -> list[dict[str, Any]]:
    """Return the Dice of every method by the volume of the true lesion.

    Returns:
        For every bin that holds a case: `low_ml` and `high_ml` (None for the last), `cases`
        and, by method, the mean and interval of `dice`. Cases without a lesion are in the first.
    """
    bins = []
    for low, high in zip(_SIZES_ML, [*_SIZES_ML[1:], None], strict=True):
        inside = [row for row in rows if _is_between(row.values["true_ml"], low, high)]
        if inside:
            methods = {
                method: {"dice": _mean_of(of_method)}
                for method, of_method in _by_method(inside).items()
            }
            cases = len({row.case for row in inside})
            bins.append({"low_ml": low, "high_ml": high, "cases": cases, "methods": methods})
    return bins


def paired_tests(rows: Sequence[ScoreRow]) -> list[dict[str, Any]]:
    """Test the vote against each axis and baseline, and pretrained members against others.

    Returns:
        For every pair with a case in common: `first`, `second`, `metric`, `cases`, `patients`,
        `mean_difference` (first minus second) with its interval `low` and `high`, `p` and the
        name of the `test`. The p values are not corrected for their number.
    """
    methods = _by_method(rows)
    pairs = [
        (VOTE, name) for name, found in methods.items() if found[0].kind in {"axis", "baseline"}
    ]
    pairs.append((f"{VOTE}_pretrained", f"{VOTE}_scratch"))
    tests = [
        _test(first, second, methods[first], methods[second])
        for first, second in pairs
        if first in methods and second in methods
    ]
    return [test for test in tests if test["cases"]]


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, 1 where no difference is left.

    Differences of 0 are left out. SciPy counts exactly up to 50 differences, or 13 where some are
    equal in size, and approximates by the normal distribution beyond.

    Args:
        differences: One for every pair, finite.

    Source:
        Wilcoxon, Individual Comparisons by Ranking Methods, 1945, as `scipy.stats.wilcoxon`.
    """
    rounded = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    rounded = rounded[rounded != 0]
    return float(wilcoxon(rounded).pvalue) if rounded.size else 1.0


def disagreement_of(rows: Sequence[ScoreRow], results: Mapping[str, CaseResult]) -> dict[str, Any]:
    """Say whether the axes' disagreement tells of errors of the vote.

    Args:
        results: By case.

    Returns:
        `spearman`: the rank correlation `rho` between a case's mean disagreement and 1 - Dice,
        its `p` and over how many `cases`; None for fewer than three or where one of the two
        is constant. Cases in which no axis finds anything have no disagreement and are left out.
        `voxel`: the `mean_auroc` with which a voxel's disagreement tells errors from the rest,
        0.5 for not at all, over the `cases` where it is defined. `cases`: each with its `case`,
        `mean_disagreement`, `auroc` and `dice`.
    """
    votes = {row.case: row.values[_TESTED] for row in rows if row.method == VOTE}
    areas = [found.auroc for found in results.values() if found.auroc is not None]
    errors = [
        (found.mean_disagreement, 1 - dice)
        for case, found in results.items()
        if (dice := votes[case]) is not None and found.mean_disagreement is not None
    ]
    return {
        "spearman": _rank_correlation(
            [unsure for unsure, _ in errors], [error for _, error in errors]
        ),
        "voxel": {"mean_auroc": fmean(areas) if areas else None, "cases": len(areas)},
        "cases": [
            {
                "case": case,
                "mean_disagreement": found.mean_disagreement,
                "auroc": found.auroc,
                "dice": votes[case],
            }
            for case, found in results.items()
        ],
    }


def _by_method(rows: Sequence[ScoreRow]) -> dict[str, list[ScoreRow]]:
    methods: dict[str, list[ScoreRow]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    return methods


def _statistic(rows: Sequence[ScoreRow], metric: str) -> dict[str, float | int | None]:
    known = _known(rows, metric)
    if not known:
        return {**dict.fromkeys(("mean", "median", "q1", "q3", "low", "high")), "cases": 0}
    values = [value for value, _ in known]
    q1, median, q3 = (float(number) for number in np.percentile(values, [25, 50, 75]))
    low, high = mean_interval(values, [patient for _, patient in known])
    mean = fmean(values)
    return {
        **{"mean": mean, "median": median, "q1": q1, "q3": q3, "low": low, "high": high},
        "cases": len(values),
    }


def _mean_of(rows: Sequence[ScoreRow]) -> dict[str, float | int | None]:
    statistic = _statistic(rows, _TESTED)
    return {name: statistic[name] for name in ("mean", "low", "high", "cases")}


def _known(rows: Sequence[ScoreRow], metric: str) -> list[tuple[float, str]]:
    values = [(row.values[metric], row.patient) for row in rows]
    return [(value, patient) for value, patient in values if value is not None]


def _total(rows: Sequence[ScoreRow], metric: str) -> int:
    return round(sum(value for value, _ in _known(rows, metric)))


def _is_between(value: float | None, low: float, high: float | None) -> bool:
    return value is not None and low <= value and (high is None or value < high)


def _test(
    first: str, second: str, firsts: Sequence[ScoreRow], seconds: Sequence[ScoreRow]
) -> dict[str, Any]:
    others = {row.case: row.values[_TESTED] for row in seconds}
    differences = [
        (row.patient, value - other)
        for row in firsts
        if (value := row.values[_TESTED]) is not None
        and (other := others.get(row.case)) is not None
    ]
    differences.sort(key=lambda difference: difference[0])
    # Cases of one patient are not independent: each patient counts once, by the mean.
    of_patients = [
        fmean(value for _, value in of_patient)
        for _, of_patient in groupby(differences, key=lambda difference: difference[0])
    ]
    values = [value for _, value in differences]
    low, high = mean_interval(values, [patient for patient, _ in differences])
    return {
        "first": first,
        "second": second,
        "metric": _TESTED,
        "cases": len(differences),
        "patients": len(of_patients),
        "mean_difference": fmean(values) if values else None,
        "low": low,
        "high": high,
        "p": signed_rank_p(of_patients),
        "test": _TEST,
    }


def _rank_correlation(ones: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"rho": None, "p": None, "cases": len(ones)}
    varied = len(set(ones)) > 1 and len(set(others)) > 1
    if varied and len(ones) >= _FEWEST_CASES_OF_A_RANK_CORRELATION:
        result = spearmanr(ones, others)
        p = float(result.pvalue)
        found.update(rho=float(result.statistic), p=p if np.isfinite(p) else None)
    return found
