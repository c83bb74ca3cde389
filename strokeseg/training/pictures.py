"""Pictures of slices, with the true and the predicted lesion outlined.

A *seen slice* is a slice of a validation case together with what a network makes of it. A
*panel* shows one sequence of it; a *picture* is a row of panels under a caption.

The truth is outlined from outside and the prediction from inside, so that both lines are to
be seen where they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from strokeseg.imaging.panels import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    bounding_box,
    draw_outlines,
    enlarge,
    grey,
)
from strokeseg.imaging.slices import upright

_TEXT_COLOUR = (255, 255, 255)
_PANEL_SIDE, _GAP, _NARROWEST = 208, 4, 330
# Room for an outline around the brain, in pixels.
_MARGIN = 2
# TensorBoard shrinks a picture to some 350 pixels until somebody clicks on it.
_WIDTH_BY_TEXT_SIZE = 34


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenSlice:
    """A slice of a validation case, and what a network makes of it.

    Attributes:
        case: Its case.
        index: Its place along the axis, from 0.
        image: (C, H, W) float32, z-scored intensities, 0 outside the brain.
        truth: (H, W) bool.
        prediction: (H, W) bool.
    """

    case: str
    index: int
    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]

    @property
    def caption(self) -> str:
        """Which slice it is, and how well it was segmented."""
        overlap = int((self.truth & self.prediction).sum())
        either = int(self.truth.sum()) + int(self.prediction.sum())
        false = int(self.prediction.sum()) - overlap
        dice = f"Dice {2 * overlap / either:.2f}" if either else "no lesion"
        return f"case {self.case}, slice {self.index}: {dice}, {false} false positives"


def slices_to_show(
    lesion_voxels: NDArray[np.int64], overlap: NDArray[np.int64], predicted: NDArray[np.int64]
) -> dict[str, int]:
    """Choose the best and the worst slices of a validation.

    Args:
        lesion_voxels: (N,) true lesion voxels of each slice.
        overlap: (N,) those of them that are predicted.
        predicted: (N,) predicted lesion voxels.

    Returns:
        Positions by name: of the slices that show a lesion `best` and `worst` by Dice, of
        equals the one with the most lesion; `most_false_positives` where there are any.
    """
    chosen: dict[str, int] = {}
    shown = np.flatnonzero(lesion_voxels > 0)
    if len(shown):
        dice = 2 * overlap[shown] / (lesion_voxels[shown] + predicted[shown])
        chosen["best"] = int(shown[np.lexsort((lesion_voxels[shown], dice))[-1]])
        chosen["worst"] = int(shown[np.lexsort((-lesion_voxels[shown], dice))[0]])
    false = predicted - overlap
    if len(false) and false.max() > 0:
        chosen["most_false_positives"] = int(false.argmax())
    return chosen


def draw_picture(
    seen: SeenSlice,
    sequences: Sequence[str],
    pixel_mm: tuple[float, float],
    *,
    left_side: str,
) -> NDArray[np.uint8]:
    """Draw a slice upright and as wide as it is, one panel a sequence.

    Args:
        sequences: Names of its channels.
        pixel_mm: Height and width of its pixels.
        left_side: What is on the left of an upright slice, in a letter.

    Returns:
        (rows, columns, 3) uint8, red, green and blue.
    """
    brain = (seen.image != 0).any(axis=0)
    rows, columns = bounding_box(brain | seen.truth | seen.prediction, _MARGIN)
    size = _panel_size((rows.stop - rows.start, columns.stop - columns.start), pixel_mm)
    image, truth, prediction = (
        enlarge(upright(layer[..., rows, columns]), size)
        for layer in (seen.image, seen.truth, seen.prediction)
    )
    panels = [draw_outlines(grey(channel), truth, prediction) for channel in image]
    return _set_out(panels, seen.caption, sequences, left_side)


def _panel_size(shape: tuple[int, int], pixel_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of an upright panel for (H, W) pixels: a whole enlargement of the finer."""
    finest = min(pixel_mm)
    height, width = (side * side_mm / finest for side, side_mm in zip(shape, pixel_mm, strict=True))
    factor = max(1, int(_PANEL_SIDE / max(height, width)))
    return round(width * factor), round(height * factor)


def _set_out(
    panels: Sequence[NDArray[np.uint8]], caption: str, sequences: Sequence[str], left_side: str
) -> NDArray[np.uint8]:
    """Put panels side by side, with the caption and the meaning of the colours above them."""
    height, width = panels[0].shape[:2]
    across = max(_NARROWEST, len(panels) * (width + _GAP) - _GAP)
    text_size = across // _WIDTH_BY_TEXT_SIZE
    line = round(1.4 * text_size)
    picture = Image.new("RGB", (across, 2 * line + height))
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(text_size)
    label = partial(canvas.text, fill=_TEXT_COLOUR, font=font, stroke_width=1, stroke_fill="black")
    canvas.text((2, 0), caption, _TEXT_COLOUR, font)
    canvas.text((2, line), "truth", TRUTH_COLOUR, font)
    canvas.text((2 + 4 * text_size, line), "prediction", PREDICTION_COLOUR, font)
    for place, (panel, sequence) in enumerate(zip(panels, sequences, strict=True)):
        left = place * (width + _GAP)
        picture.paste(Image.fromarray(panel), (left, 2 * line))
        label((left + 2, 2 * line), sequence)
    label((2, 2 * line + height // 2), left_side, anchor="lm")
    return np.asarray(picture)
