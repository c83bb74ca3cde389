"""Intervals by the bootstrap over patients.

A *resample* takes as many patients as there are, with replacement; all cases of a patient come
together, since they are not independent. The interval is that of SciPy's bias-corrected and
accelerated bootstrap (BCa), for the mean over the cases of the patients that were drawn.

Source:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14 (BCa; 2,000
    resamples, which place both ends to a few hundredths of the interval's width).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

RESAMPLES = 2_000
SEED = 0
CONFIDENCE = 0.95

_FEWEST_PATIENTS = 2
_ROUNDING = 1e-12


def mean_interval(
    values: Sequence[float], patients: Sequence[str]
) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of a mean over cases.

    Args:
        values: One for every case, finite.
        patients: Whose case each is.

    Returns:
        Both ends. None for fewer than two patients, who say nothing of others; the mean twice
        where all patients have the same mean, for which BCa is not defined.
    """
    names, owners = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < _FEWEST_PATIENTS:
        return None, None
    totals = np.asarray(np.bincount(owners, weights=values), dtype=float)
    counts = np.asarray(np.bincount(owners), dtype=float)
    means = totals / counts
    if np.allclose(means, means[0], rtol=_ROUNDING, atol=_ROUNDING):
        return float(means[0]), float(means[0])
    low, high = bootstrap(
        (totals, counts),
        _mean,
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(low), float(high)


def _mean(
    totals: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Return the mean over cases of what patients' values sum to and how many cases they have."""
    return np.asarray(totals.sum(axis=axis) / counts.sum(axis=axis))
