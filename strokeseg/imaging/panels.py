"""Panels: slices as pixels, with masks outlined in colour.

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
GREY_STEP = 4
_DARKEST, _BRIGHTEST = 1, 99
# The darkest tissue is brighter than the background.
_LOWEST_LEVEL = 20


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


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around a mask, widened within the array; all of it when empty.

    Args:
        mask: bool, of any number of axes.
        margin: Voxels added on every side.
    """
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return tuple(slice(0, size) for size in mask.shape)
    return tuple(
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, size in zip(boxes[0], mask.shape, strict=True)
    )


def grey(channel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Spread the brain's intensities over the levels of grey; the background stays black.

    Args:
        channel: Slice or volume, float32, 0 outside the brain.

    Returns:
        uint8 of the same shape.
    """
    brain = channel != 0
    if not brain.any():
        return np.zeros(channel.shape, dtype=np.uint8)
    darkest, brightest = np.percentile(channel[brain], (_DARKEST, _BRIGHTEST))
    share = np.clip((channel - darkest) / max(brightest - darkest, 1e-6), 0, 1)
    levels = np.rint(_LOWEST_LEVEL + (255 - _LOWEST_LEVEL) * share).astype(np.uint8)
    return np.where(brain, levels // GREY_STEP * GREY_STEP, 0).astype(np.uint8)


def draw_outlines(
    levels: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    width: int = 1,
) -> NDArray[np.uint8]:
    """Return a panel with both masks outlined in their colours.

    Args:
        levels: (H, W) uint8, levels of grey.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        width: Of the lines, in pixels.

    Returns:
        (H, W, 3) uint8, red, green and blue.
    """
    outside, inside = outlines(truth, prediction, width)
    panel = np.repeat(levels[..., None], 3, axis=-1)
    panel[outside], panel[inside] = TRUTH_COLOUR, PREDICTION_COLOUR
    return panel


def outlines(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], width: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels just outside the truth and those just inside the prediction.

    Pixels touch each other by their sides, not by their corners.

    Args:
        truth: (H, W) bool.
        prediction: (H, W) bool.
        width: Of the lines, in pixels.

    Returns:
        Two arrays (H, W) bool.
    """
    outside = ndimage.binary_dilation(truth, iterations=width) & ~truth
    # Beyond the picture's edge counts as lesion: a line there would be none of its outline.
    core = ndimage.binary_erosion(prediction, iterations=width, border_value=1)
    return outside, prediction & ~core
