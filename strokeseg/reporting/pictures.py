"""Pictures of scored cases in three planes, with the true and the predicted lesion outlined.

A *seen case* is one sequence of a case with both masks, in RAS+ order and cut to the brain. Each
plane is the slice with most of the true lesion; where there is none, of the predicted one; where
there is neither, the middle one.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from strokeseg.imaging.cases import mask_name
from strokeseg.imaging.panels import GREY_STEP, bounding_box, draw_outlines, grey
from strokeseg.imaging.scan import read_lesion
from strokeseg.imaging.slices import AXES, AXIS, upright
from strokeseg.imaging.volume import Grid, Volume, read_volume, to_ras, voxels_on
from strokeseg.records.summary import VOTE, ScoreRow
from strokeseg.reporting.results import Results

# Lesions stand out on these, in this order; another data set may have neither.
_PREFERRED = ("FLAIR", "DWI")
_PANEL_SIDE, _GAP, _TEXT_SIZE = 340, 6, 18
# One pixel is too thin for eyes.
_LINE_WIDTH = 2
_MARGIN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenCase:
    """One sequence of a case with both masks.

    Attributes:
        name: Of the case.
        grey: (X, Y, Z) uint8 in RAS+ order, 0 outside the brain.
        truth: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.
        grid: Where the voxels lie.
    """

    name: str
    sequence: str
    grey: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    grid: Grid


def cases_to_show(rows: Sequence[ScoreRow]) -> dict[str, ScoreRow]:
    """Choose the worst, the median and the best case, each case once.

    Args:
        rows: A row a case, the worst first.
    """
    if not rows:
        return {}
    chosen = {"worst": rows[0]}
    if len(rows) > 2:
        chosen["median"] = rows[(len(rows) - 1) // 2]
    if len(rows) > 1:
        chosen["best"] = rows[-1]
    return chosen


def see_case(results: Results, name: str) -> SeenCase:
    """Read a case's image, its true lesion and what the ensemble made of it.

    Raises:
        CaseError: When a file cannot be read.
    """
    case = results.preparation.cases[name]
    sequences = results.ensemble.sequences
    sequence = next((known for known in _PREFERRED if known in sequences), sequences[0])
    folder = results.experiment.masks_folder(results.summary["on"])
    predicted = to_ras(read_volume(folder / mask_name(name, VOTE)))
    image = voxels_on(to_ras(read_volume(case.images[sequence])), predicted.grid, order=1)
    truth = np.zeros(predicted.grid.shape, dtype=bool)
    if case.mask is not None:
        labels = results.experiment.config.data.lesion_labels
        lesion = read_lesion(case.mask, labels)
        as_bytes = Volume(voxels=lesion.voxels.astype(np.uint8), grid=lesion.grid)
        truth = voxels_on(as_bytes, predicted.grid, order=0) > 0
    prediction = predicted.voxels > 0
    # The corner of a skull-stripped scan is background, whatever its value.
    image = image - image[0, 0, 0]
    box = bounding_box((image != 0) | truth | prediction, _MARGIN)
    affine = predicted.grid.affine_ras.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    x, y, z = image[box].shape
    return SeenCase(
        name=name,
        sequence=sequence,
        grey=grey(image[box]),
        truth=truth[box],
        prediction=prediction[box],
        grid=Grid(shape=(x, y, z), affine_ras=affine),
    )


def draw_planes(seen: SeenCase) -> bytes:
    """Draw a case in three planes side by side, the truth in blue, the prediction in orange.

    Returns:
        A PNG file.
    """
    panels = [_panel(seen, 3 + AXIS[name].position, AXIS[name].left) for name in AXES]
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    picture = Image.new("RGB", (width, max(panel.height for panel in panels)))
    left = 0
    for panel in panels:
        picture.paste(panel, (left, (picture.height - panel.height) // 2))
        left += panel.width + _GAP
    # Few greys and two colours: a palette makes the file a third as large.
    return encode(picture.quantize(128), "PNG")


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as the bytes of a file of a kind that Pillow knows."""
    file = BytesIO()
    picture.save(file, kind, optimize=True, **options)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture's file as an address that holds it whole."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def slice_to_show(seen: SeenCase, axis: int) -> int:
    """The slice across an axis of the array that shows most of the lesion."""
    for mask in (seen.truth, seen.prediction):
        if mask.any():
            return largest_slice(mask, axis)
    return int(seen.grey.shape[axis]) // 2


def largest_slice(mask: NDArray[np.bool_], axis: int) -> int:
    """The slice across an axis of a mask (X, Y, Z) that holds most of it."""
    areas: NDArray[np.int64] = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(areas.argmax())


def _panel(seen: SeenCase, axis: int, letter: str) -> Image.Image:
    index = slice_to_show(seen, axis)
    spacing = [side for place, side in enumerate(seen.grid.spacing_mm) if place != axis]
    layers = [
        upright(np.take(volume, index, axis=axis))
        for volume in (seen.grey, seen.truth, seen.prediction)
    ]
    rows, columns = layers[0].shape
    # Upright pictures have the array's first side across.
    width_mm, height_mm = columns * spacing[0], rows * spacing[1]
    factor = _PANEL_SIDE / max(width_mm, height_mm)
    size = (max(1, round(width_mm * factor)), max(1, round(height_mm * factor)))
    scan = Image.fromarray(np.ascontiguousarray(layers[0])).resize(size, Image.Resampling.BICUBIC)
    truth, prediction = (
        np.asarray(
            Image.fromarray(np.ascontiguousarray(layer)).resize(size, Image.Resampling.NEAREST)
        )
        for layer in layers[1:]
    )
    levels = np.asarray(scan) // GREY_STEP * GREY_STEP
    picture = Image.fromarray(draw_outlines(levels, truth, prediction, _LINE_WIDTH))
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(_TEXT_SIZE)
    canvas.text(
        (4, size[1] // 2), letter, (255, 255, 255), font, "lm", stroke_width=1, stroke_fill="black"
    )
    return picture
