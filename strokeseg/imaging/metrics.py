"""Metrics: how well a predicted mask agrees with the true one, in three dimensions.

A voxel is a *true positive* when both masks call it lesion. All voxels of a case count
together, never slice by slice.

Source: Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging
stroke lesion segmentation dataset", Scientific Data 9 (2022), for Dice and absolute volume
difference and for the rule that two empty masks agree completely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MM3_PER_ML = 1000.0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Agreement of two masks.

    Attributes:
        dice: 2 TP / (true + predicted), 0 to 1.
        sensitivity: TP / true, 0 to 1.
        precision: TP / predicted, 0 to 1.
        volume_difference_ml: |predicted - true|.
        true_ml: Volume of the true lesion.
        predicted_ml: Volume of the predicted lesion.
    """

    dice: float
    sensitivity: float
    precision: float
    volume_difference_ml: float
    true_ml: float
    predicted_ml: float


def volume_ml(mask: NDArray[np.generic], spacing_mm: tuple[float, float, float]) -> float:
    """Volume of a mask's lesion.

    Args:
        mask: (X, Y, Z); every voxel that is not 0 counts.
        spacing_mm: Voxel size along the mask's axes.
    """
    return int(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / MM3_PER_ML


def score_masks(
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    spacing_mm: tuple[float, float, float],
) -> Scores:
    """Score a predicted mask against the true one.

    When both masks are empty, Dice, sensitivity and precision are 1: "no lesion" was
    right. When only one of them is, all three are 0.

    Args:
        truth: (X, Y, Z) bool or integer, 0 and 1.
        prediction: The same shape and values, on the same grid.
        spacing_mm: Voxel size along the masks' axes.

    Raises:
        ValueError: When the shapes differ or a mask holds anything but 0 and 1.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"masks must share a shape, got {truth.shape} and {prediction.shape}")
    true, predicted = _as_bool(truth), _as_bool(prediction)
    true_count, predicted_count = int(true.sum()), int(predicted.sum())
    hits = int(np.count_nonzero(true & predicted))
    nothing = 1.0 if true_count == predicted_count == 0 else 0.0
    true_ml, predicted_ml = volume_ml(true, spacing_mm), volume_ml(predicted, spacing_mm)
    return Scores(
        dice=_ratio(2 * hits, true_count + predicted_count, nothing),
        sensitivity=_ratio(hits, true_count, nothing),
        precision=_ratio(hits, predicted_count, nothing),
        volume_difference_ml=abs(predicted_ml - true_ml),
        true_ml=true_ml,
        predicted_ml=predicted_ml,
    )


def _as_bool(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    flags = mask.astype(bool)
    if mask.dtype.kind not in "bui" or not np.array_equal(flags, mask):
        raise ValueError(f"a mask must hold the integers 0 and 1 only, got {mask.dtype} values")
    return flags


def _ratio(numerator: int, denominator: int, nothing: float) -> float:
    return numerator / denominator if denominator else nothing
