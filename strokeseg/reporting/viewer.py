"""A viewer in which a case is looked through slice by slice, with no network.

The viewer is brainsprite, as nilearn carries it. It wants a *sprite*: all sagittal slices of a
volume in one picture, row by row, each with superior up and anterior on the right. The patient's
right is on the left, as on the other pictures, so the slices come from right to left.

Source:
    brainsprite, https://github.com/brainsprite/brainsprite (MIT licence); nilearn,
    https://nilearn.github.io (BSD licence).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from strokeseg.errors import UserError
from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR
from strokeseg.imaging.volume import Volume, resample
from strokeseg.reporting.pictures import SeenCase, data_uri, encode, largest_slice

# Where both masks agree; Okabe and Ito's bluish green, apart from both for the colour-blind.
AGREED_COLOUR = (0, 158, 115)

# Coarser scans are filled in, or the lines through the chosen point would hide the lesion.
_FINEST_STEP_MM, _LONGEST_SIDE_VOXELS = 1.0, 112
_JPEG_QUALITY = 80
_OPACITY = 0.55
_PALETTE = (0, 0, 0, *TRUTH_COLOUR, *PREDICTION_COLOUR, *AGREED_COLOUR)


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """What the page needs to show a case slice by slice.

    Attributes:
        name: Unique on the page, fit for an id.
        case: Name of the case.
        sequence: The sequence shown.
        step_mm: Side of the voxels shown.
        scan_uri: The sprite of the sequence, a JPEG.
        overlay_uri: The sprite of the lesions, a PNG with transparency.
        parameters: Options of brainsprite.
    """

    name: str
    case: str
    sequence: str
    step_mm: float
    scan_uri: str
    overlay_uri: str
    parameters: dict[str, Any]


def viewer_of(seen: SeenCase, name: str) -> Viewer:
    """Return the viewer of a case.

    Args:
        seen: The case.
        name: Unique on the page, fit for an id.
    """
    grey, classes, affine_ras = _small(seen)
    overlay = Image.fromarray(_sprite(classes), mode="P")
    overlay.putpalette(_PALETTE)
    scan = encode(Image.fromarray(_sprite(grey)), "JPEG", quality=_JPEG_QUALITY)
    return Viewer(
        name=name,
        case=seen.name,
        sequence=seen.sequence,
        step_mm=float(np.linalg.norm(affine_ras[:3, 0])),
        scan_uri=data_uri(scan, "jpeg"),
        overlay_uri=data_uri(encode(overlay, "PNG", transparency=0), "png"),
        parameters=_parameters(name, classes, affine_ras),
    )


@lru_cache(maxsize=1)
def brainsprite() -> str:
    """Return the script of brainsprite, fit to stand in a page.

    Raises:
        UserError: When nilearn is not installed or does not carry the viewer.
    """
    try:
        files = metadata.files("nilearn") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "brainsprite.min.js":
            return file.read_text(encoding="utf-8").replace("</script", "<\\/script")
    raise UserError(
        "nilearn: the report's viewer comes with it, and it is not there; "
        "run pip install '.[search]' in a checkout of strokeseg"
    )


def _parameters(
    name: str, classes: NDArray[np.uint8], affine_ras: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the options of brainsprite; it starts where most of the lesions is."""
    marked = classes > 0
    places = [
        largest_slice(marked, axis) if marked.any() else side // 2
        for axis, side in enumerate(classes.shape)
    ]
    sides = dict(zip("XYZ", classes.shape, strict=True))
    return {
        "canvas": f"{name}-canvas",
        "sprite": f"{name}-sprite",
        "nbSlice": sides,
        "overlay": {"sprite": f"{name}-overlay", "nbSlice": sides, "opacity": _OPACITY},
        "colorBackground": "#000000",
        "colorFont": "#FFFFFF",
        "colorCrosshair": "#9aa7b4",
        "crosshair": True,
        "affine": affine_ras.tolist(),
        "flagCoordinates": True,
        "flagValue": False,
        "numSlice": dict(zip("XYZ", places, strict=True)),
        "radiological": True,
    }


def _small(seen: SeenCase) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Bring a case to cubes of a size that a page can carry, from right to left.

    Returns:
        Levels of grey and classes (0 nothing, 1 missed, 2 false, 3 found), (X, Y, Z) uint8 with
        X towards the left, and the affine that brainsprite asks with indices from 1.
    """
    spacing = seen.grid.spacing_mm
    longest_mm = max(side * step for side, step in zip(seen.grid.shape, spacing, strict=True))
    step_mm = max(_FINEST_STEP_MM, longest_mm / _LONGEST_SIDE_VOXELS)
    grid = seen.grid.with_spacing((step_mm, step_mm, step_mm))
    classes = seen.truth.astype(np.uint8) + 2 * seen.prediction.astype(np.uint8)
    grey = resample(Volume(voxels=seen.grey, grid=seen.grid), grid, 1).voxels
    marked = resample(Volume(voxels=classes, grid=seen.grid), grid, 0).voxels
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = grid.shape[0] - 1
    from_one = np.eye(4)
    from_one[:3, 3] = -1
    return grey[::-1], marked[::-1], grid.affine_ras @ flip @ from_one


def _sprite(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay the slices (Z, Y) of a volume (X, Y, Z) out in rows, superior up."""
    x, y, z = volume.shape
    rows = ceil(sqrt(x))
    columns = ceil(x / rows)
    tiles = np.zeros((rows * columns, z, y), dtype=np.uint8)
    tiles[:x] = volume.transpose(0, 2, 1)[:, ::-1]
    return np.ascontiguousarray(
        tiles.reshape(rows, columns, z, y).swapaxes(1, 2).reshape(rows * z, columns * y)
    )
