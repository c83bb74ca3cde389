"""Smooth fields: few random numbers, spread over a slice.

A *field* has a value at every voxel of a slice. It is a cubic B-spline of *control values*
on a coarse grid, whose *spacing* is a slice's side divided by the *intervals* along it; one
control value lies before the slice and two after it, so there are intervals + 3 of them.

A field's value is a weighted mean of 4 x 4 control values: it never leaves their range. Its
slope along an axis is a weighted mean of the differences of neighbours divided by the
spacing: control values within -d and d give slopes within -2 d / spacing and 2 d / spacing.

Source:
    Rueckert et al., Nonrigid registration using free-form deformations, IEEE TMI 1999.
"""

from __future__ import annotations

import torch
from torch import Tensor


def control_shape(intervals: tuple[int, int]) -> tuple[int, int]:
    """Return how many control values a field needs along H and W."""
    return intervals[0] + 3, intervals[1] + 3


def smooth_field(control: Tensor, intervals: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Spread control values over slices.

    Args:
        control: (B, C, *control_shape(intervals)) float32.
        intervals: Along H and W, each 1 or more.
        size: H and W.

    Returns:
        (B, C, H, W) float32.
    """
    rows, columns = (
        _weights(side, count, control.device) for side, count in zip(size, intervals, strict=True)
    )
    return rows @ control @ columns.mT


def _weights(side: int, intervals: int, device: torch.device) -> Tensor:
    """Return (side, intervals + 3) float32, what every control value gives to every voxel."""
    places = (torch.arange(side, device=device) + 0.5) * (intervals / side)
    controls = torch.arange(-1, intervals + 2, device=device)
    distance = (places[:, None] - controls).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)
