"""Smooth random fields: the noise that bends, shades and roughens simulated cases.

A *field* is a random function of position with mean 0 and standard deviation 1 that
varies over about `scale_mm`. It is drawn on a coarse lattice and read off at the voxels
through cubic B-splines, axis by axis, so that a fine grid costs little more than a coarse
one and equal generators give the same function at every voxel size. No matrix product is
used: its last bit may depend on the number of threads, and equal seeds must give equal
bytes.

*Axes* are three 1D arrays: the voxel centres' coordinates in mm along the grid's axes,
all of them within `REACH_MM` of 0.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]

REACH_MM = 130.0

# The mean over positions of the sum of squared cubic B-spline weights is 151/315 an axis.
FIELD_DEVIATION = (151 / 315) ** 1.5


def smooth_field(generator: np.random.Generator, axes_mm: Axes, scale_mm: float) -> np.ndarray:
    """Draw one field.

    Args:
        generator: Source of randomness; what is drawn depends on `scale_mm` alone.
        axes_mm: Voxel centres along X, Y and Z in mm, within `REACH_MM` of 0.
        scale_mm: Distance over which the field varies, in mm.

    Returns:
        (X, Y, Z) float32, mean 0 and standard deviation 1 over draws.
    """
    count = int(np.ceil(2 * REACH_MM / scale_mm)) + 4
    values = generator.standard_normal((count, count, count), dtype=np.float32)
    values /= np.float32(FIELD_DEVIATION)
    for axis, coordinates in enumerate(axes_mm):
        values = _interpolate(values, axis, (coordinates + REACH_MM) / scale_mm)
    return values


def _interpolate(values: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Cubic B-spline values along one axis at positions given in lattice steps."""
    first = np.floor(positions).astype(np.intp)
    shape = [1] * values.ndim
    shape[axis] = len(positions)
    parts = (
        values.take(first + offset, axis=axis) * weight.astype(np.float32).reshape(shape)
        for offset, weight in enumerate(_spline_weights(positions - first))
    )
    return reduce(np.add, parts)


def _spline_weights(t: np.ndarray) -> tuple[np.ndarray, ...]:
    """The four uniform cubic B-spline weights at fractions `t` in [0, 1) of a lattice step."""
    return (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
