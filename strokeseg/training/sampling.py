"""Which slices an epoch trains on.

Most slices show no lesion. An *epoch* therefore draws a set share of its slices from those
that do, the rest from those that do not, and shuffles them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_epoch(
    has_lesion: NDArray[np.bool_],
    slices: int,
    lesion_fraction: float,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw the slices of one epoch, in the order of training.

    Either kind is drawn without repeats as far as it reaches, then evenly again. Where one
    kind is missing, the other takes its place.

    Args:
        has_lesion: (N,) bool, one a slice; N of 1 or more.
        slices: How many to draw.
        lesion_fraction: Fraction of the draws with lesion, 0 to 1, rounded to whole slices.
        generator: The source of the draw.

    Returns:
        (slices,) int64 positions in `has_lesion`.
    """
    with_lesion, without_lesion = np.flatnonzero(has_lesion), np.flatnonzero(~has_lesion)
    lesions = round(slices * lesion_fraction)
    if len(with_lesion) == 0:
        lesions = 0
    elif len(without_lesion) == 0:
        lesions = slices
    drawn = np.concatenate(
        [
            _draw_evenly(with_lesion, lesions, generator),
            _draw_evenly(without_lesion, slices - lesions, generator),
        ]
    )
    return generator.permutation(drawn)


def _draw_evenly(
    positions: NDArray[np.int64], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    if count == 0:
        return positions[:0]
    rounds = -(-count // len(positions))
    return np.concatenate([generator.permutation(positions) for _ in range(rounds)])[:count]


def cut_batches(drawn: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cut an epoch's draw into batches.

    A last batch of a single slice, from which batch normalisation cannot learn, is left out
    unless every batch is to be that small.
    """
    batches = [drawn[start : start + batch_size] for start in range(0, len(drawn), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        del batches[-1]
    return batches
