"""Uncertainty: where the axes of an ensemble disagree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def disagreement(probabilities: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return how much the axes disagree, voxel by voxel.

    It is twice the standard deviation of the axes' probabilities: 0 where they agree, at most 1,
    where half of them are sure of a lesion and the other half of none. Three axes reach 0.94.

    Args:
        probabilities: By axis, (X, Y, Z) float32, 0 to 1, of one shape.

    Returns:
        (X, Y, Z) float32, 0 to 1; 0 everywhere for a single axis.

    Raises:
        ValueError: When there are no axes.
    """
    if not probabilities:
        raise ValueError("disagreement needs the probabilities of one axis or more, got none")
    shape = next(iter(probabilities.values())).shape
    total, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for probability in probabilities.values():
        total += probability
        squares += probability * probability
    count = np.float32(len(probabilities))
    total /= count
    squares /= count
    variance = np.maximum(squares - total * total, 0, out=squares)
    return np.asarray(np.minimum(2 * np.sqrt(variance), 1), dtype=np.float32)
