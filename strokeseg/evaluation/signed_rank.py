"""The Wilcoxon signed-rank test, exact with ties too.

Differences of 0 are left out; equal ones share the mean of their ranks. If the signs are down
to chance, each rank counts as positive with probability one half, whatever the others do: the
distribution of their sum is built rank by rank, so nothing is approximated.

Source:
    Wilcoxon, Individual Comparisons by Ranking Methods, 1945; Pratt and Gibbons, Concepts of
    Nonparametric Theory, 1981 (the distribution given the ties).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

# Differences of sums of floats that are equal on paper differ in the last digits.
_DECIMALS = 12


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the two-sided probability of differences so lopsided by chance.

    Args:
        differences: One for every pair, finite.
    """
    rounded = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    rounded = rounded[rounded != 0]
    if not rounded.size:
        return 1.0
    # Shared ranks end in one half: doubled, all are whole.
    ranks = np.rint(2 * rankdata(np.abs(rounded))).astype(int)
    observed = int(ranks[rounded > 0].sum())
    chances = np.ones(1)
    for rank in ranks:
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    lower, upper = chances[: observed + 1].sum(), chances[observed:].sum()
    return float(min(1.0, 2 * min(lower, upper)))
