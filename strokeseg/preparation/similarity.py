"""Similarity: how alike two images are, whatever was done to one to make it look new.

A *descriptor* is a coarse picture of the inside of an image's foreground (see `brain` for
that word), on `SIDE` cells along each axis. Its *frame* is the centre of the foreground and
its standard deviation along each axis, so that neither position nor voxel size show in it.
The outermost layer is left out, since interpolation changes it most. What is left is
high-passed: slow changes, bias fields and the anatomy that all heads share go, the folds and
findings of one person stay. The *similarity* of two images is the correlation of their
descriptors, from -1 to 1, in the best of the eight ways to flip one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import hadamard

SIDE = 24

# From here two images are one scan. Measured, in any sequence, different people: 0.52 at most
# (real, 1 mm), 0.67 (simulated in pairs on one brain, 2 mm), 0.69 (phantoms, all on one template
# brain, 2 and 3 mm), 0.81 (phantoms of 6 mm, 4,950 pairs). Real scans and the simulated pairs
# against their copies, however saved, flipped, cropped, resampled or made noisy: 0.88 and more.
# Phantoms of 2 and 3 mm, the noisiest: 0.97 while no voxel is interpolated, 0.82 and more (0.87 in
# the best of their sequences) when resampled a little, 0.69 (0.79) after all of it at once. Voxels
# of 5 mm and more give another picture when resampled (0.5 to 0.9): such copies may pass.
SAME_SCAN_FROM = 0.85

# In standard deviations of the foreground: an ellipsoid ends at the root of 5, and its rim
# is not wanted.
_REACH = 2.0
_BLUR_CELLS = 0.5
# A narrower kernel would fall between the voxels of a coarse image.
_LEAST_BLUR_VOXELS = 0.7
_HIGH_PASS_CELLS = 1.8
_LEAST_COVERED = 0.9
# One bright lesion must not outweigh the rest of the brain.
_LARGEST_DEVIATIONS = 3.0
# Of a normal distribution's absolute values.
_DEVIATIONS_PER_MEDIAN = 1.4826
# In units of the image, which varies by 1: less is rounding.
_LEAST_DEVIATION = 1e-3
_ROWS_AT_ONCE = 512


def describe(image: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return the descriptor of an image.

    Args:
        image: (X, Y, Z) float32 with a standard deviation of about 1 (or more) in its
            foreground, 0 outside of it.

    Returns:
        (SIDE, SIDE, SIDE) int8, 0 in cells that are not counted; all 0 for an image whose
        inside is too small or too flat to tell it from others.
    """
    foreground = image != 0
    kernels = [_kernel(counts) for counts in _profiles(foreground)]
    inside = _without_rim(foreground)
    covered = _sample(inside.astype(np.float32), kernels)
    values = _sample(np.where(inside, image, np.float32(0)), kernels)
    counted = ndimage.binary_erosion(covered > _LEAST_COVERED)
    values = np.where(counted, values / np.maximum(covered, _LEAST_COVERED), 0)
    weights = counted.astype(np.float32)
    surroundings = _blur(values) / np.maximum(_blur(weights), np.finfo(np.float32).tiny)
    details = (values - surroundings) * weights
    # By the median: a bright lesion would raise the standard deviation, and so escape the limit.
    deviation = _DEVIATIONS_PER_MEDIAN * np.median(np.abs(details[counted])) if counted.any() else 0
    if not deviation > _LEAST_DEVIATION:
        return np.zeros(details.shape, dtype=np.int8)
    steps = details * (np.iinfo(np.int8).max / (_LARGEST_DEVIATIONS * deviation))
    return np.asarray(np.rint(np.clip(steps, -127, 127)), dtype=np.int8)


def similarities(descriptors: Sequence[NDArray[np.int8]]) -> NDArray[np.float32]:
    """Compare each of some images with each.

    Args:
        descriptors: One an image, as `describe` returns them.

    Returns:
        (N, N) float32, symmetric, -1 to 1; 0 where a descriptor is all 0.
    """
    found = np.empty((len(descriptors), len(descriptors)), dtype=np.float32)
    for rows, columns, block in blocks_of_similarities(descriptors):
        found[rows, columns] = block
        found[columns, rows] = block.T
    return found


def blocks_of_similarities(
    descriptors: Sequence[NDArray[np.int8]], side: int = _ROWS_AT_ONCE
) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Compare each of some images with each, in memory that does not grow with their number.

    Args:
        descriptors: One an image, as `describe` returns them.
        side: Images that are compared with as many at once.

    Yields:
        Rows, columns, and the (rows, columns) float32 part of the matrix that `similarities`
        returns: the parts on and above its diagonal.
    """
    # How the eight parts change their sign under the eight flips.
    signs = hadamard(8).astype(np.float32)
    batches = [slice(start, start + side) for start in range(0, len(descriptors), side)]
    for place, rows in enumerate(batches):
        ahead = _parts(np.stack(descriptors[rows]))
        for columns in batches[place:]:
            behind = ahead if columns == rows else _parts(np.stack(descriptors[columns]))
            products = ahead @ behind.transpose(0, 2, 1)
            yield rows, columns, np.tensordot(signs, products, axes=1).max(axis=0)


def _profiles(foreground: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Numbers of foreground voxels in the planes along X, Y, Z."""
    return [foreground.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]


def _kernel(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(SIDE, length) weights that take an axis of voxels to an axis of cells."""
    positions = np.arange(len(counts))
    centre = np.average(positions, weights=counts)
    spread = np.sqrt(np.average((positions - centre) ** 2, weights=counts))
    cell = 2 * _REACH * spread / SIDE
    middles = centre + cell * (np.arange(SIDE) - (SIDE - 1) / 2)
    blur = max(_BLUR_CELLS * cell, _LEAST_BLUR_VOXELS)
    weights = np.exp(-0.5 * ((positions - middles[:, np.newaxis]) / blur) ** 2)
    # Not by each row's sum: what lies beyond the array is background.
    return np.asarray(weights / (blur * np.sqrt(2 * np.pi)), dtype=np.float32)


def _sample(
    voxels: NDArray[np.float32], kernels: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """(SIDE, SIDE, SIDE): each axis in turn goes from voxels to cells."""
    for kernel in kernels:
        voxels = np.tensordot(voxels, kernel, axes=(0, 1))
    return voxels


def _without_rim(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Foreground whose neighbours, the diagonal ones too, are foreground."""
    inside = np.pad(foreground, 1)
    for axis in range(3):
        inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    return inside[1:-1, 1:-1, 1:-1]


def _blur(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(ndimage.gaussian_filter(cells, _HIGH_PASS_CELLS, mode="constant"))


def _parts(descriptors: NDArray[np.int8]) -> NDArray[np.float32]:
    """Split unit-length descriptors into parts that only change sign when flipped.

    A volume is the sum of an even and an odd part about its middle plane, and so along
    three axes of eight. All flips are compared at the price of one.

    Args:
        descriptors: (N, SIDE, SIDE, SIDE).

    Returns:
        (8, N, SIDE**3 / 8) float32.
    """
    cells = descriptors.astype(np.float32)
    lengths = np.sqrt(np.square(cells).sum(axis=(1, 2, 3), keepdims=True))
    parts = [cells / np.maximum(lengths, 1)]
    for axis in (1, 2, 3):
        halves = [(part, np.flip(part, axis)) for part in parts]
        window = (slice(None),) * axis + (slice(SIDE // 2),)
        parts = [
            part[window] * np.sqrt(np.float32(0.5))
            for ahead, behind in halves
            for part in (ahead + behind, ahead - behind)
        ]
    return np.stack([part.reshape(len(part), -1) for part in parts])
