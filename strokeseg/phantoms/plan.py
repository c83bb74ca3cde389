"""What the simulated cases of one folder share out among themselves.

A *plan* gives every case its lesion's volume and contrast, or no lesion. Values are spread
evenly over the cases, so that a few cases represent many: of 16 volumes, one lies in each
sixteenth of the distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

MEDIAN_ML = 13.0
PERCENTILE_5_ML = 0.3
PERCENTILE_95_ML = 200.0
LIMITS_ML = (0.1, 400.0)
CONTRAST_SHARES = {"subtle": 0.25, "moderate": 0.45, "strong": 0.3}


@dataclass(frozen=True, kw_only=True)
class CasePlan:
    """What one case is given by its folder's plan: no `volume_ml` means no lesion."""

    number: int
    volume_ml: float | None
    contrast: str


def draw_plan(cases: int, *, seed: int, lesion_free_share: float = 0.0) -> list[CasePlan]:
    """Share volumes, contrasts and absent lesions out among the cases 1 to `cases`."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    lesion_free = round(lesion_free_share * cases)
    volumes: list[float | None] = [None] * lesion_free
    volumes += draw_volumes_ml(generator, cases - lesion_free).tolist()
    order = generator.permutation(cases)
    levels = list(CONTRAST_SHARES)
    ends = np.cumsum(list(CONTRAST_SHARES.values()))
    contrasts = np.searchsorted(ends, _even_shares(generator, cases), side="right")
    return [
        CasePlan(
            number=number + 1,
            volume_ml=volumes[order[number]],
            contrast=levels[min(int(contrasts[number]), len(levels) - 1)],
        )
        for number in range(cases)
    ]


def draw_volumes_ml(generator: np.random.Generator, count: int) -> np.ndarray:
    """Draw lesion volumes, one from each of `count` equally likely ranges, in random order.

    Their logarithm is normal with one deviation below the median and a wider or narrower one
    above it, so that the median is `MEDIAN_ML` and the outer percentiles are
    `PERCENTILE_5_ML` and `PERCENTILE_95_ML`, about what real strokes have.

    Returns:
        (count,) float64, ml, within `LIMITS_ML`.
    """
    scores = ndtri(_even_shares(generator, count))
    outer = np.where(scores < 0, MEDIAN_ML / PERCENTILE_5_ML, PERCENTILE_95_ML / MEDIAN_ML)
    volumes = MEDIAN_ML * np.exp(scores / ndtri(0.95) * np.log(outer))
    return np.asarray(np.clip(volumes, *LIMITS_ML))


def _even_shares(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count,) numbers in (0, 1), one in each of `count` equal intervals, in random order."""
    inside = generator.uniform(0.01, 0.99, count)
    return np.asarray((generator.permutation(count) + inside) / max(count, 1))
