"""Deformation: slices turned, scaled, moved, flipped and bent, in one sampling.

A *place* is (x, y) in voxels along W and H, (0, 0) in the middle of the first voxel. A
deformation tells for every place of the output where in the input to look. The *affine*
part turns, scales, flips and moves a slice as a whole; the *displacement* bends it. Both
are composed before anything is sampled, since every sampling blurs.

Nothing folds: neighbouring control values of a displacement differ by at most 2 d, where d
is a fifth of their spacing at most. So each of the four slopes of the displacement is at
most 2 d / spacing = 0.4 (see `smooth_field`), the two in a row add up to 0.8 < 1, and the
Jacobian of place + displacement, which is diagonally dominant, has a positive determinant.
"""

from __future__ import annotations

import torch
from kornia.geometry import create_meshgrid
from kornia.geometry.transform import get_affine_matrix2d, warp_grid
from torch import Tensor
from torch.nn import functional

from strokeseg.training.draws import Draws
from strokeseg.training.smooth_field import control_shape, smooth_field

# Full extents, at strength 1.
_ROTATION_DEGREES = 15.0
_SCALING = 0.15
_SHIFT = 0.05
_FLIP_PROBABILITY = 0.5
_BENT = 0.5
_DISPLACEMENT = 0.2
_INTERVALS = 4


def draw_deformation(draws: Draws, strength: float, size: tuple[int, int], *, flip: bool) -> Tensor:
    """Draw where each place of the output looks (see `deform`).

    Args:
        draws: Draws for B slices.
        strength: 0 to 1.
        size: H and W.
        flip: Whether slices may be reversed along H.

    Returns:
        (B, H, W, 2) float32 places of the input.
    """
    height, width = size
    angle = draws.uniform(strength * _ROTATION_DEGREES)
    scale = 1 + draws.uniform(strength * _SCALING)
    flipped = draws.chances(strength * _FLIP_PROBABILITY) & flip
    shift = torch.stack(
        [draws.uniform(strength * _SHIFT * side) for side in (width, height)], dim=-1
    )
    affine = affine_of(angle, scale, flipped, shift, size)
    return look_up(affine, draw_displacement(draws, strength, size))


def draw_displacement(draws: Draws, strength: float, size: tuple[int, int]) -> Tensor:
    """Draw how far each place of the output is displaced.

    A slice is bent with probability strength / 2, by control values of up to strength / 5 of
    their spacing, which is about a quarter of the slice's shorter side.

    Args:
        draws: Draws for B slices.
        strength: 0 to 1.
        size: H and W.

    Returns:
        (B, 2, H, W) float32, along x and y in voxels; all 0 where a slice is not bent.
    """
    height, width = size
    aim = min(size) / _INTERVALS
    intervals = (round(height / aim), round(width / aim))
    spacing = min(height / intervals[0], width / intervals[1])
    control = draws.uniform(strength * _DISPLACEMENT * spacing, 2, *control_shape(intervals))
    bent = draws.chances(strength * _BENT, 1, 1, 1)
    return smooth_field(control * bent, intervals, size)


def affine_of(
    angle: Tensor, scale: Tensor, flipped: Tensor, shift: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the affine part from the output's places to the input's, about the middle.

    Args:
        angle: (B,) degrees by which to turn, against the clock as displayed.
        scale: (B,) magnification.
        flipped: (B,) bool, whether to reverse slices along H after turning them.
        shift: (B, 2) from the input's to the output's middle, (x, y) in voxels of the input.
        size: H and W.

    Returns:
        (B, 3, 3) float32, for columns (x, y, 1).
    """
    # Straight from the output to the input, in which kornia's clockwise angle turns the output
    # the other way: inverting a matrix would make a GPU wait.
    shrinking = torch.stack([1 / scale, torch.where(flipped, -1 / scale, 1 / scale)], dim=-1)
    center = torch.empty_like(shift)
    center[:, 0], center[:, 1] = (size[1] - 1) / 2, (size[0] - 1) / 2
    return get_affine_matrix2d(shift, center, shrinking, angle)


def look_up(affine: Tensor, displacement: Tensor) -> Tensor:
    """Compose affine parts (B, 3, 3) with displacements (B, 2, H, W): the latter come first.

    Returns:
        (B, H, W, 2) float32, for every place of the output one of the input.
    """
    height, width = displacement.shape[2:]
    places = create_meshgrid(height, width, normalized_coordinates=False, device=affine.device)
    return warp_grid(places + displacement.permute(0, 2, 3, 1), affine)


def deform(images: Tensor, masks: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Sample images (B, C, H, W) linearly and masks (B, 1, H, W) at the nearest voxel.

    Args:
        images: Floating point.
        masks: Floating point.
        places: (B, H, W, 2) of the input, one for each of the output; beyond the input is 0.
    """
    height, width = images.shape[2:]
    # What torch calls -1 and 1 are here the middles of the first and the last voxel. kornia's remap
    # would do the same, but with numbers that it sends to a GPU in every step.
    middles = [
        2 * place / (side - 1) - 1
        for place, side in zip(places.unbind(dim=-1), (width, height), strict=True)
    ]
    grid = torch.stack(middles, dim=-1)
    return (
        functional.grid_sample(images, grid, mode="bilinear", align_corners=True),
        functional.grid_sample(masks, grid, mode="nearest", align_corners=True),
    )
