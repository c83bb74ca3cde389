"""Uncertainty: where the axes of an ensemble disagree.

The *disagreement* of a voxel is the standard deviation of the axes' probabilities, divided by the
largest that so many numbers between 0 and 1 can have: 0 where all say the same, 1 where the axes
are sure and as evenly divided as their number allows. Computed from the differences of pairs, so
that equal probabilities give exactly 0: the variance of n numbers is the sum of their pairs'
squared differences by n squared, and that sum is at most (n // 2) * (n - n // 2).

Source: Nair et al., "Exploring uncertainty measures in deep networks for multiple sclerosis
lesion detection and segmentation", Medical Image Analysis 59 (2020), for the variance of several
predictions as a measure of uncertainty; the scale is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def disagreement(axis_probabilities: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return how much the axes disagree, voxel by voxel.

    Args:
        axis_probabilities: By axis, (X, Y, Z) float32, 0 to 1, of one shape.

    Returns:
        (X, Y, Z) float32, 0 to 1; 0 everywhere for a single axis.

    Raises:
        ValueError: When there are no axes, or their shapes differ.
    """
    maps = list(axis_probabilities.values())
    shapes = {probability.shape for probability in maps}
    if len(shapes) != 1:
        raise ValueError(f"disagreement needs maps of one shape, got {sorted(shapes)}")
    squares = np.zeros(maps[0].shape, dtype=np.float32)
    for first, second in combinations(maps, 2):
        difference = np.subtract(first, second, dtype=np.float32)
        squares += np.square(difference, out=difference)
    half = len(maps) // 2
    if half:
        squares /= np.float32(half * (len(maps) - half))
    disagreed: NDArray[np.float32] = np.sqrt(squares, out=squares)
    return np.minimum(disagreed, np.float32(1), out=disagreed)
