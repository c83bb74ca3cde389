"""Panels: slices as pixels, and the colours of what is outlined on them.

The colours of truth and prediction differ for the colour-blind too.

Source of the colours: Okabe and Ito, Color universal design, 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TRUTH_COLOUR, PREDICTION_COLOUR = (86, 180, 233), (230, 159, 0)
# Levels of grey are dropped that no eye tells apart and that make a file twice as large.
_GREY_STEP = 4
_DARKEST, _BRIGHTEST = 1, 99


def enlarge(layer: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Repeat pixels until they fill a panel.

    Args:
        layer: (..., h, w).
        size: Rows and columns of the panel.

    Returns:
        (..., rows, columns) of the same dtype.
    """
    rows, columns = (
        np.arange(large) * small // large
        for large, small in zip(size, layer.shape[-2:], strict=True)
    )
    return np.asarray(layer[..., rows[:, None], columns])


def grey(channel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Spread the brain's intensities over the levels of grey; what is no brain stays black.

    Args:
        channel: (h, w) float32, 0 outside the brain.

    Returns:
        (h, w) uint8.
    """
    brain = channel != 0
    if not brain.any():
        return np.zeros(channel.shape, dtype=np.uint8)
    darkest, brightest = np.percentile(channel[brain], (_DARKEST, _BRIGHTEST))
    share = np.clip((channel - darkest) / max(brightest - darkest, 1e-6), 0, 1)
    steps = np.rint(share * (255 // _GREY_STEP)).astype(np.uint8)
    return np.where(brain, steps * _GREY_STEP, 0).astype(np.uint8)


def outlines(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels just outside the truth and those just inside the prediction.

    Pixels touch each other by their sides, not by their corners.

    Args:
        truth: (H, W) bool.
        prediction: (H, W) bool.

    Returns:
        Two arrays (H, W) bool.
    """
    outside = ndimage.binary_dilation(truth) & ~truth
    # Beyond the picture's edge counts as lesion: a line there would be none of its outline.
    inside = prediction & ~ndimage.binary_erosion(prediction, border_value=1)
    return outside, inside
