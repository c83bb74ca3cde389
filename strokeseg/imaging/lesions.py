"""Lesions: the connected parts of a mask.

A *lesion* is a 26-connected component: voxels that share a face, an edge or a corner. A true
lesion is *found* when at least one of its voxels is predicted, and *missed* otherwise; a predicted
lesion is *false* when it shares no voxel with the truth.

Source: Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging
stroke lesion segmentation dataset", Scientific Data 9 (2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

_CONNECTIVITY = 26
# A volume of many voxels is no exact float: by so much of it a lesion may seem smaller.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class LesionCounts:
    """How two masks agree lesion by lesion.

    Attributes:
        true: Lesions of the truth.
        predicted: Lesions of the prediction.
        missed: True lesions without a predicted voxel.
        false: Predicted lesions without a true voxel.
    """

    true: int
    predicted: int
    missed: int
    false: int

    @property
    def f1(self) -> float | None:
        """TP / (TP + (FP + FN) / 2) with TP the true lesions found; None without lesions."""
        found = self.true - self.missed
        weight = found + (self.false + self.missed) / 2
        return found / weight if weight else None


def count_lesions(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> LesionCounts:
    """Count the lesions of two masks and those that the other lacks.

    Args:
        truth: (X, Y, Z) bool.
        prediction: The same shape.
    """
    (true, true_count), (predicted, predicted_count) = _labels(truth), _labels(prediction)
    both = np.flatnonzero(truth & prediction)
    return LesionCounts(
        true=true_count,
        predicted=predicted_count,
        missed=true_count - len(np.unique(true.ravel()[both])),
        false=predicted_count - len(np.unique(predicted.ravel()[both])),
    )


def lesion_volumes_mm3(
    mask: NDArray[np.generic], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Return the volume of every lesion, largest first.

    Args:
        mask: (X, Y, Z) bool or integer, 0 and 1.
        spacing_mm: Voxel size along the mask's axes.
    """
    labels, _ = _labels(mask.astype(bool))
    voxels = np.bincount(labels.ravel())[1:]
    return np.asarray(np.sort(voxels)[::-1] * np.prod(spacing_mm), dtype=np.float64)


def without_small_lesions(
    mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float], smallest_mm3: float
) -> NDArray[np.uint8]:
    """Return a mask without the lesions below a volume.

    Args:
        mask: (X, Y, Z) uint8, 0 or 1.
        spacing_mm: Voxel size along the mask's axes.
        smallest_mm3: Volume that a lesion must have to stay.
    """
    labels, _ = _labels(mask.astype(bool))
    volumes_mm3 = np.bincount(labels.ravel()) * np.prod(spacing_mm)
    kept = volumes_mm3 >= smallest_mm3 * (1 - _ROUNDING)
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.uint8)


def _labels(mask: NDArray[np.bool_]) -> tuple[NDArray[np.integer], int]:
    """Number the lesions of a mask (0 where there is none), and count them."""
    # Of bools, cc3d 4.1.1 expects too few components where most voxels touch no other, and fails.
    voxels = mask.view(np.uint8)
    labels, count = cc3d.connected_components(voxels, connectivity=_CONNECTIVITY, return_N=True)
    return labels, int(count)
