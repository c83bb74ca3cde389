"""Whether the best of several options is better than what there was, or lucky.

Every option has a *gain* for each patient: its Dice less the Dice before. Its *score* is its
mean gain in units of the root of its mean squared gain, so that options that do much, for good
or ill, count no more than those that do little. If the options were no better than what there
was, a patient's gains might as well have the other sign, all options' together. So the signs
are flipped patient by patient, and each time the highest score is taken, whichever option has
it. How often it reaches the score that was seen is *p*: it knows how many options were tried,
and how alike they are.

Source:
    Westfall and Young, Resampling-Based Multiple Testing, 1993 (the maximum over what was
    tried); Nichols and Holmes, Nonparametric permutation tests for functional neuroimaging,
    Human Brain Mapping 15 (2002) (flipped signs of paired differences).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT_P = 0.05
_EXACT_PATIENTS = 12
_FLIPS = 10_000
# Sums in another order differ in their last bits, which must not decide between equal gains.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class BestOption:
    """The option of the highest mean gain.

    Attributes:
        index: Which one; the first of equals.
        gain: Its mean gain over the patients.
        p: Chance of a score as high by any of the options, were none of them better.
    """

    index: int
    gain: float
    p: float


def best_option(gains: NDArray[np.float64]) -> BestOption:
    """Find the option of the highest mean gain and how probable luck is.

    With up to 12 patients all flips of signs are counted, the observed signs included, so p
    is at least 1 / 2^patients; with more, 9,999 random ones (of a fixed seed) and the observed.

    Args:
        gains: (options, patients), at least one of each.

    Raises:
        ValueError: When there is no option or no patient.
    """
    if not gains.size:
        raise ValueError(f"a test needs options and patients, got gains of {gains.shape}")
    patients = gains.shape[1]
    means = gains.mean(axis=1)
    index = int(np.argmax(means > means.max() - _ROUNDING))
    size = np.sqrt(np.mean(gains**2, axis=1))
    scaled = gains / np.where(size > 0, size, 1.0)[:, None]
    highest = (_signs(patients) @ scaled.T / patients).max(axis=1)
    p = float(np.mean(highest >= scaled[index].mean() - _ROUNDING))
    return BestOption(index=index, gain=float(means[index]), p=p)


def smallest_p(patients: int) -> float:
    """The smallest p that so many patients can give, however much better an option is."""
    return 1.0 / (1 << patients if patients <= _EXACT_PATIENTS else _FLIPS)


@cache
def _signs(patients: int) -> NDArray[np.float64]:
    """Flips of signs (flips, patients), the first of them all 1."""
    if patients <= _EXACT_PATIENTS:
        flipped = np.arange(1 << patients)[:, None] >> np.arange(patients) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, size=(_FLIPS, patients))
        flipped[0] = 0
    return np.where(flipped, -1.0, 1.0)
