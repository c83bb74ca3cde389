"""One member over one volume, slice by slice.

A *predictor* is a member and the function that computes it. It gets the very slices that training
saw: cut, rounded to float16, padded. A slice without brain is lesion-free without a prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.imaging import slices

_LARGEST_BATCH = 32
# What a network needs grows with the voxels of a batch: so many as 32 slices of 256 x 256 have.
_BATCH_VOXELS = _LARGEST_BATCH * 256 * 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A member of an ensemble and the function that computes it.

    Attributes:
        name: The member's file name without its ending.
        axis: The one of `slices.AXES` that it was trained on.
        slice_size: (H, W) of the slices in training; None for the smallest that fits.
        predict: From slices (B, C, H, W) float32 to probabilities (B, H, W) float32, 0 to 1 and 0
            where all channels are 0.
    """

    name: str
    axis: str
    slice_size: tuple[int, int] | None
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def predict_volume(
    predictor: Predictor, images: NDArray[np.float32], *, batch_size: int = _LARGEST_BATCH
) -> NDArray[np.float32]:
    """Return the probability of lesion in every voxel, as one member sees it.

    Args:
        predictor: The member; where its slice size is too small for this volume, the smallest
            multiples of 32 that hold the volume's slices take its place.
        images: (C, X, Y, Z) float32 in RAS+ order, prepared as for training.
        batch_size: Slices at once, fewer where they are larger than 256 x 256.

    Returns:
        (X, Y, Z) float32, 0 to 1.

    Raises:
        ValueError: When the member gives numbers that are not finite.
    """
    cut = slices.cut(images, predictor.axis).astype(np.float16)
    height, width = cut.shape[-2:]
    x, y, z = images.shape[1:]
    size = slices.slice_size((x, y, z), predictor.axis)
    trained = predictor.slice_size
    if trained is not None and height <= trained[0] and width <= trained[1]:
        size = trained
    padded = slices.pad(cut, size)
    probability = np.zeros((len(padded), *size), dtype=np.float32)
    with_brain = np.flatnonzero(slices.hold_brain(padded))
    batch_size = max(1, min(batch_size, _BATCH_VOXELS // (size[0] * size[1])))
    for start in range(0, len(with_brain), batch_size):
        batch = with_brain[start : start + batch_size]
        probability[batch] = predictor.predict(padded[batch].astype(np.float32))
    if not np.isfinite(probability).all():
        raise ValueError(
            f"the probabilities of {predictor.name} must be finite, got infinite or no numbers"
        )
    unpadded = slices.unpad(probability, (height, width))
    return np.ascontiguousarray(slices.join(unpadded, predictor.axis))
