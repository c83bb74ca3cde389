"""A picture by which a human sees at a glance whether a segmentation can be right.

It shows every sequence in the three *planes*, one slice of each, through the largest lesion or,
where there is none, through the middle of the brain; the predicted lesion is outlined. Slices
stand the way radiologists look at them, all to one scale in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from strokeseg.imaging.panels import draw_outlines, enlarge, grey
from strokeseg.imaging.slices import AXES, AXIS, cut, pixel_mm, upright
from strokeseg.storage.files import replacing_file

_PANEL_SIDE, _GAP, _TEXT_SIZE, _LINE = 240, 4, 13, 19
_TEXT_COLOUR = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plane:
    """One slice along an axis, as pixels to one scale.

    Attributes:
        axis: One of `slices.AXES`.
        panels: (C, rows, columns, 3) uint8, a sequence each.
    """

    axis: str
    panels: NDArray[np.uint8]


def write_quality_picture(
    path: Path,
    images: NDArray[np.float32],
    mask: NDArray[np.uint8],
    *,
    sequences: Sequence[str],
    spacing_mm: tuple[float, float, float],
    caption: str,
) -> None:
    """Draw the picture as PNG.

    Args:
        path: File to write; appears complete or not at all.
        images: (C, X, Y, Z) float32 in RAS+ order, 0 outside the brain.
        mask: (X, Y, Z) uint8, 0 and 1, the predicted lesion.
        sequences: Names of the channels.
        spacing_mm: Voxel size (x, y, z).
        caption: Which case it is, and what was found.

    Raises:
        UserError: When the folder cannot be written to.
    """
    place = indices_to_show(mask)
    x, y, z = (side * step for side, step in zip(mask.shape, spacing_mm, strict=True))
    pixels_per_mm = _PANEL_SIDE / max(x, y, z)
    planes = [_plane(images, mask, axis, place[axis], spacing_mm, pixels_per_mm) for axis in AXES]
    picture = _set_out(planes, sequences, caption)
    with replacing_file(path) as temporary:
        picture.save(temporary, format="PNG")


def indices_to_show(mask: NDArray[np.uint8]) -> dict[str, int]:
    """Choose a slice along each axis: where the largest lesion is largest, else the middle.

    Args:
        mask: (X, Y, Z) uint8, 0 and 1.

    Returns:
        The slice's index by axis.
    """
    middle = {axis: len(cut(mask, axis)) // 2 for axis in AXES}
    boxes = ndimage.find_objects(mask)
    if not boxes:
        return middle
    (box,) = boxes
    labels = cc3d.connected_components(mask[box], connectivity=26)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    lesion = labels == sizes.argmax()
    return {
        name: box[axis.position].start
        + int(np.count_nonzero(cut(lesion, name), axis=(1, 2)).argmax())
        for name, axis in AXIS.items()
    }


def _plane(
    images: NDArray[np.float32],
    mask: NDArray[np.uint8],
    axis: str,
    index: int,
    spacing_mm: tuple[float, float, float],
    pixels_per_mm: float,
) -> _Plane:
    layer = upright(cut(images, axis)[index])
    height_mm, width_mm = pixel_mm(spacing_mm, axis)
    # Upright, the second axis of a slice runs down.
    rows = max(1, round(layer.shape[-2] * width_mm * pixels_per_mm))
    columns = max(1, round(layer.shape[-1] * height_mm * pixels_per_mm))
    lesion = enlarge(upright(cut(mask, axis)[index]) > 0, (rows, columns))
    no_truth = np.zeros_like(lesion)
    channels = enlarge(layer, (rows, columns))
    panels = [draw_outlines(grey(channel), no_truth, lesion) for channel in channels]
    return _Plane(axis=axis, panels=np.stack(panels))


def _set_out(planes: Sequence[_Plane], sequences: Sequence[str], caption: str) -> Image.Image:
    """Put the planes side by side, a row a sequence, under the caption."""
    height = max(plane.panels.shape[1] for plane in planes)
    width = sum(plane.panels.shape[2] + _GAP for plane in planes) - _GAP
    font = ImageFont.load_default(_TEXT_SIZE)
    across = max(width, round(font.getlength(caption)) + _GAP)
    picture = Image.new("RGB", (across, 2 * _LINE + len(sequences) * (height + _GAP) - _GAP))
    canvas = ImageDraw.Draw(picture)
    canvas.text((2, 1), caption, _TEXT_COLOUR, font)
    left = 0
    for plane in planes:
        canvas.text((left + 2, _LINE + 1), plane.axis, _TEXT_COLOUR, font)
        _, rows, columns, _ = plane.panels.shape
        for number, panel in enumerate(plane.panels):
            top = 2 * _LINE + number * (height + _GAP)
            picture.paste(Image.fromarray(panel), (left, top + (height - rows) // 2))
            _label(canvas, font, (left + 2, top + height // 2), AXIS[plane.axis].left, "lm")
        left += columns + _GAP
    for number, sequence in enumerate(sequences):
        _label(canvas, font, (2, 2 * _LINE + number * (height + _GAP)), sequence, "la")
    return picture


def _label(
    canvas: ImageDraw.ImageDraw, font: Any, place: tuple[int, int], text: str, anchor: str
) -> None:
    canvas.text(place, text, _TEXT_COLOUR, font, anchor=anchor, stroke_width=1, stroke_fill="black")
