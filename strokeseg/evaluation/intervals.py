"""Intervals by the bootstrap over patients.

A *draw* takes as many patients as there are, with replacement; all cases of a patient come
together, since they are not independent. The interval of a mean holds the middle 95 % of the
means of the draws. All methods and metrics of the same patients share their draws.

Source:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95

_FEWEST_PATIENTS = 2


def mean_interval(
    values: Sequence[float], patients: Sequence[str]
) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of a mean over cases.

    Args:
        values: One for every case, finite.
        patients: Whose case each is.

    Returns:
        Both ends, or nothing for fewer than two patients, who say nothing of others.
    """
    names, owners = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < _FEWEST_PATIENTS:
        return None, None
    times = _draws(len(names))
    totals = times @ np.bincount(owners, weights=np.asarray(values, dtype=float))
    counts = times @ np.bincount(owners)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(totals / counts, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(patients: int) -> NDArray[np.int64]:
    """How often each draw takes each patient, (draws, patients)."""
    chances = np.full(patients, 1 / patients)
    return np.random.default_rng(SEED).multinomial(patients, chances, size=SAMPLES)
