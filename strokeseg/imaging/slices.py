"""Slices: a volume cut along an axis, padded to one size, and put together again.

An *axis* is one of three ways to cut a volume in RAS+ order: *sagittal* slices follow
each other along X, *coronal* ones along Y, *axial* ones along Z. A slice's rows (H) and
columns (W) are the two axes that remain, in their order.

Both directions live here, so that what is cut comes back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError

AxisName: TypeAlias = Literal["axial", "coronal", "sagittal"]
AXES: tuple[str, ...] = get_args(AxisName)
# Of the tables that hold them (`table`).
SCHEMA_VERSION = "2"

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What tells one axis from the others.

    Attributes:
        position: Of the axis among the last three of a volume, -3 (X) to -1 (Z).
        left: The letter of what lies on the left of an upright slice: R (right) or A (anterior).
        flips: Whether a slice flipped from left to right still looks like a brain. Rows of a
            sagittal slice run from back to front: a flip puts the face to the back.
    """

    position: int
    left: str
    flips: bool


AXIS: Mapping[str, Axis] = {
    "axial": Axis(position=-1, left="R", flips=True),
    "coronal": Axis(position=-2, left="R", flips=True),
    "sagittal": Axis(position=-3, left="A", flips=False),
}


def cut(volume: NDArray[Any], axis: str) -> NDArray[Any]:
    """All slices along an axis.

    Args:
        volume: (..., X, Y, Z) in RAS+ order.
        axis: One of `AXES`.

    Returns:
        (N, ..., H, W), a view: (X, ..., Y, Z), (Y, ..., X, Z) or (Z, ..., X, Y).
    """
    return np.moveaxis(volume, _position(axis), 0)


def join(slices: NDArray[Any], axis: str) -> NDArray[Any]:
    """Undo `cut`.

    Args:
        slices: (N, ..., H, W), all slices in their order.
        axis: One of `AXES`.

    Returns:
        (..., X, Y, Z), a view.
    """
    return np.moveaxis(slices, 0, _position(axis))


def pad(slices: NDArray[Any], size: Size) -> NDArray[Any]:
    """Put zeros around slices, evenly; an odd voxel goes below or to the right.

    Args:
        slices: (..., h, w).
        size: (H, W), at least (h, w).

    Returns:
        (..., H, W) of the same dtype, a copy.

    Raises:
        UserError: When the slices do not fit.
    """
    height, width = slices.shape[-2:]
    if height > size[0] or width > size[1]:
        raise UserError(
            f"slices must fit the slice size {size[0]} x {size[1]}, got {height} x {width}; "
            "raise preparation.slice_size or leave it out"
        )
    padded = np.zeros((*slices.shape[:-2], *size), dtype=slices.dtype)
    padded[_window(size, (height, width))] = slices
    return padded


def unpad(slices: NDArray[Any], size: Size) -> NDArray[Any]:
    """Undo `pad`.

    Args:
        slices: (..., H, W).
        size: (h, w) before padding.

    Returns:
        (..., h, w), a view.

    Raises:
        ValueError: When the size is larger than the slices.
    """
    height, width = slices.shape[-2:]
    if size[0] > height or size[1] > width:
        raise ValueError(f"size must be at most {height} x {width}, got {size[0]} x {size[1]}")
    window = _window((height, width), size)
    return np.asarray(slices[window])


def slice_size(shape: tuple[int, int, int], axis: str, multiple: int = 32) -> Size:
    """The smallest size that holds a volume's slices and divides by `multiple`.

    Args:
        shape: (X, Y, Z) of the volume.
        axis: One of `AXES`.
        multiple: Both sides are multiples of it; a U-Net of depth 5 asks for 32.

    Returns:
        (H, W).
    """
    sides = list(shape)
    del sides[_position(axis)]
    height, width = (-(-side // multiple) * multiple for side in sides)
    return height, width


def pixel_mm(spacing_mm: tuple[float, float, float], axis: str) -> tuple[float, float]:
    """The height and width of a slice's pixels in mm, of voxels of (x, y, z) mm."""
    sides = list(spacing_mm)
    del sides[_position(axis)]
    height, width = sides
    return height, width


def upright(slices: NDArray[Any]) -> NDArray[Any]:
    """Turn slices of any axis the way radiologists look at them.

    Superior is up, on axial slices anterior. The patient's right is on the left, on sagittal
    slices anterior.

    Args:
        slices: (..., H, W).

    Returns:
        (..., W, H), a view: rows from above, columns from the left.
    """
    # H and W grow to the right, the front or above: pictures grow down and to the right.
    return np.flip(np.swapaxes(slices, -1, -2), axis=(-1, -2))


def _position(axis: str) -> int:
    if axis not in AXIS:
        raise ValueError(f"axis must be one of {AXES}, got {axis!r}")
    return AXIS[axis].position


def _window(outer: Size, inner: Size) -> tuple[Any, ...]:
    top, left = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    return (..., slice(top, top + inner[0]), slice(left, left + inner[1]))


def hold_brain(images: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Tell the slices that hold brain from those of nothing but zeros.

    A slice without brain is lesion-free without a prediction.

    Args:
        images: (N, C, H, W) float16, 0 outside the brain.

    Returns:
        (N,) bool.
    """
    # Bit patterns, since comparing float16 numbers takes numpy several times as long.
    bits = np.ascontiguousarray(images).view(np.uint16)
    return np.asarray(bits.reshape(len(bits), -1).max(axis=1, initial=0) > 0)
