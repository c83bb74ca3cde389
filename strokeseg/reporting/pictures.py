"""Pictures of a sight in three planes, with truth and prediction outlined.

The planes go through the largest lesion of the truth, or of the prediction where there is none,
one slice along each axis. The truth is outlined from outside and the prediction from inside, so
that both lines are to be seen where they agree.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR, enlarge, grey
from strokeseg.imaging.quality_picture import telling_place
from strokeseg.imaging.slices import AXES, cut, pixel_mm, upright
from strokeseg.learning.pictures import outlines
from strokeseg.reporting.sights import Sight

_PANEL_SIDE, _GAP, _TEXT_SIZE = 260, 4, 14
# What is to the left of an upright slice; see `imaging.slices.upright`.
_LEFT_SIDE = {"axial": "R", "coronal": "R", "sagittal": "A"}
# Pictures have a palette: 64 levels of grey, then the colours.
_GREYS, _TRUTH, _PREDICTION, _WHITE = 64, 64, 65, 66
_PALETTE = [
    *(level * 4 for level in range(_GREYS) for _ in range(3)),
    *TRUTH_COLOUR,
    *PREDICTION_COLOUR,
    *(255, 255, 255),
]


def planes_picture(sight: Sight, channel: int) -> bytes:
    """Return one sequence of a sight in three planes, all to one scale in mm, as PNG.

    Args:
        sight: What is seen.
        channel: Index of the sequence.
    """
    mask = sight.truth if sight.truth.any() else sight.prediction
    place = telling_place(mask.astype(np.uint8))
    sides_mm = (n * step for n, step in zip(mask.shape, sight.spacing_mm, strict=True))
    pixels_per_mm = _PANEL_SIDE / max(sides_mm)
    panels = [_panel(sight, channel, axis, place[axis], pixels_per_mm) for axis in AXES]
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] + _GAP for panel in panels) - _GAP
    picture = Image.fromarray(np.zeros((height, width), dtype=np.uint8))
    picture.putpalette(_PALETTE)
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(_TEXT_SIZE)
    # Letters of soft edges would ask for greys that stand for other things in the palette.
    canvas.fontmode = "1"
    left = 0
    for axis, panel in zip(AXES, panels, strict=True):
        rows, columns = panel.shape
        picture.paste(Image.fromarray(panel), (left, (height - rows) // 2))
        canvas.text((left + 2, height // 2), _LEFT_SIDE[axis], _WHITE, font, anchor="lm")
        left += columns + _GAP
    return _png(picture)


def _panel(
    sight: Sight, channel: int, axis: str, index: int, pixels_per_mm: float
) -> NDArray[np.uint8]:
    height_mm, width_mm = pixel_mm(sight.spacing_mm, axis)
    layers = [
        upright(cut(volume, axis)[index])
        for volume in (sight.images[channel], sight.truth, sight.prediction)
    ]
    # Upright, the second axis of a slice runs down.
    rows = max(1, round(layers[0].shape[0] * width_mm * pixels_per_mm))
    columns = max(1, round(layers[0].shape[1] * height_mm * pixels_per_mm))
    image, truth, prediction = (enlarge(layer, (rows, columns)) for layer in layers)
    panel = grey(image) // (256 // _GREYS)
    outside, inside = outlines(truth, prediction)
    panel[outside], panel[inside] = _TRUTH, _PREDICTION
    return panel


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return content.getvalue()
