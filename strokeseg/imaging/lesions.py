"""Lesions: the connected parts of a mask.

A *lesion* is a 26-connected component: voxels that share a face, an edge or a corner.

Source: Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging
stroke lesion segmentation dataset", Scientific Data 9 (2022).
"""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray


def without_small_lesions(
    mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float], smallest_mm3: float
) -> NDArray[np.uint8]:
    """Return a mask without the lesions below a volume.

    Args:
        mask: (X, Y, Z) uint8, 0 or 1.
        spacing_mm: Voxel size along the mask's axes.
        smallest_mm3: Volume that a lesion must have to stay.
    """
    labels = cc3d.connected_components(mask, connectivity=26)
    kept = np.bincount(labels.ravel()) * np.prod(spacing_mm) >= smallest_mm3
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.uint8)
