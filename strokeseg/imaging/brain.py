"""Brain: where the tissue of a scan is, and intensities that compare from scan to scan.

The *background* of an image is the value that its border voxels share: 0 in most files,
but not in all (images that were normalised before have some negative number there). Its
*foreground* is the rest. The *brain* of a case is where any of its images has foreground.

Scanners give intensities in arbitrary units, so every image is brought to mean 0 and
standard deviation 1 inside the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from strokeseg.errors import CaseError
from strokeseg.imaging.volume import Shape

# Skull-stripped images have nearly all of their border at the background, raw ones most of
# it. Less than this is noise all around.
MIN_BACKGROUND_SHARE = 0.1

Window = tuple[slice, slice, slice]


def without_background(image: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Shift an image's intensities so that its background is exactly 0.

    Args:
        image: (X, Y, Z) float32.
        name: What to call the image in an error.

    Returns:
        (X, Y, Z) float32; foreground is where it is not 0.

    Raises:
        CaseError: When all voxels are equal or the border shares no value.
    """
    if image.min() == image.max():
        raise CaseError(f"{name} must show something, every voxel is {image.flat[0]:g}")
    faces = [np.take(image, [0, -1], axis=axis).ravel() for axis in range(3)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    background, share = values[counts.argmax()], counts.max() / counts.sum()
    if share < MIN_BACKGROUND_SHARE:
        raise CaseError(
            f"{name} must have one background value around the brain, the most frequent value "
            f"({background:g}) fills {share:.1%} of its border; remove the skull and the noise"
        )
    return np.asarray(image - background, dtype=np.float32)


def find_brain(images: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Where any of the images has foreground.

    Args:
        images: Arrays (X, Y, Z) float32 with background 0, on one grid.
    """
    brain: NDArray[np.bool_] = images[0] != 0
    for image in images[1:]:
        brain |= image != 0
    return brain


def bounding_box(brain: NDArray[np.bool_]) -> tuple[Shape, Shape]:
    """The smallest box around a brain.

    Args:
        brain: (X, Y, Z), true somewhere.

    Returns:
        First voxel and number of voxels along X, Y, Z.
    """
    start, sides = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(brain.any(axis=others))
        start.append(int(filled[0]))
        sides.append(int(filled[-1] - filled[0] + 1))
    return (start[0], start[1], start[2]), (sides[0], sides[1], sides[2])


def window(start: Shape, sides: Shape) -> Window:
    """The slices that take a box out of an array."""
    x, y, z = (slice(first, first + side) for first, side in zip(start, sides, strict=True))
    return x, y, z


def normalise(image: NDArray[np.float32], brain: NDArray[np.bool_], name: str) -> None:
    """Bring an image to mean 0 and standard deviation 1 inside the brain and 0 outside.

    Where others show brain and this one has none, as when it covers fewer slices, it says
    nothing and is 0, too; dark holes inside its own foreground are tissue.

    No voxel can lie further out than the root of the number of brain voxels, a few
    thousand, so the result always fits float16.

    Args:
        image: (X, Y, Z) float32 with background 0; changed in place.
        brain: (X, Y, Z), true wherever the image has foreground.
        name: What to call the image in an error.

    Raises:
        CaseError: When it has no voxel in the brain, or all of them are equal.
    """
    covered = image != 0
    if not covered.any():
        raise CaseError(f"{name} must cover a part of the brain, it shows none of it")
    if not np.array_equal(covered, brain):
        covered = ndimage.binary_fill_holes(covered) & brain
    values = image[covered].astype(np.float64)
    deviation = values.std()
    if not deviation > 0:
        raise CaseError(f"{name} must vary inside the brain, every voxel there is equal")
    image[...] = 0
    image[covered] = (values - values.mean()) / deviation
