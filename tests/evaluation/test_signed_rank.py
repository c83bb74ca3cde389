from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from strokeseg.evaluation.signed_rank import signed_rank_p


def counted_p(differences: list[float]) -> float:
    """The same probability by trying every way to sign the ranks."""
    rest = [difference for difference in differences if difference]
    ranks = rankdata(np.abs(rest))
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    observed = sum(rank for rank, value in zip(ranks, rest, strict=True) if value > 0)
    lower = np.mean([total <= observed for total in sums])
    upper = np.mean([total >= observed for total in sums])
    return float(min(1, 2 * min(lower, upper)))


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
        ([], 1.0),
        ([0, 0], 1.0),
    ],
)
def test_p_is_the_share_of_signs_that_are_as_lopsided(differences: list[float], p: float) -> None:
    assert signed_rank_p(differences) == pytest.approx(p, abs=1e-12)


def test_ties_are_counted_exactly() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        differences = generator.integers(-3, 4, size=9).astype(float).tolist()
        assert signed_rank_p(differences) == pytest.approx(counted_p(differences), abs=1e-12)


@pytest.mark.parametrize("patients", [5, 12, 40])
def test_p_is_that_of_scipy_where_nothing_ties(patients: int) -> None:
    differences = np.random.default_rng(patients).normal(0.3, 1, size=patients).tolist()
    assert signed_rank_p(differences) == pytest.approx(
        wilcoxon(differences, method="exact").pvalue, rel=1e-9
    )


def test_differences_that_are_equal_on_paper_count_as_equal() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats.
    assert signed_rank_p([0.1 + 0.2 - 0.3, 1.0]) == signed_rank_p([1.0])
