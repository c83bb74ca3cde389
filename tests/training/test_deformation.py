"""Deformation in one sampling."""

from __future__ import annotations

import torch

from strokeseg.training.deformation import (
    affine_of,
    deform,
    draw_deformation,
    draw_displacement,
    look_up,
)
from strokeseg.training.draws import Draws
from strokeseg.training.smooth_field import control_shape, smooth_field


def _draws(count: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), count)


def _affine(
    masks: torch.Tensor, *, degrees: float = 0, scale: float = 1, flipped: bool = False
) -> torch.Tensor:
    """Move masks (1, 1, H, W) as a whole."""
    height, width = masks.shape[2:]
    affine = affine_of(
        torch.tensor([float(degrees)]),
        torch.tensor([float(scale)]),
        torch.tensor([flipped]),
        torch.zeros(1, 2),
        (height, width),
    )
    return deform(masks, masks, look_up(affine, torch.zeros(1, 2, height, width)))[1]


def _rectangle(size: tuple[int, int], rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(1, 1, *size)
    mask[0, 0, rows, columns] = 1
    return mask


def test_no_change_gives_the_very_same_slices() -> None:
    masks = _rectangle((64, 128), slice(24, 40), slice(80, 88))
    assert torch.equal(_affine(masks), masks)


def test_a_rotation_keeps_the_shape_of_things_in_oblong_slices() -> None:
    # A rectangle of 16 rows and 8 columns, 16 to 24 columns right of the centre of a slice
    # of 64 x 128, is turned by 90 degrees about the centre: 8 rows, 16 columns, 16 to 24
    # rows above it (rows 32 - 24 = 8 to 16, columns 64 - 8 = 56 to 72).
    masks = _rectangle((64, 128), slice(24, 40), slice(80, 88))
    expected = _rectangle((64, 128), slice(8, 16), slice(56, 72))
    assert torch.equal(_affine(masks, degrees=90), expected)


def test_scaling_magnifies() -> None:
    # Twice as large: rows 24..39 of 64 become 16..47, in both directions.
    masks = _rectangle((64, 64), slice(24, 40), slice(24, 40))
    expected = _rectangle((64, 64), slice(16, 48), slice(16, 48))
    assert torch.equal(_affine(masks, scale=2), expected)


def test_flipping_reverses_rows() -> None:
    masks = _rectangle((64, 128), slice(4, 10), slice(80, 88))
    assert torch.equal(_affine(masks, flipped=True), masks.flip(2))


def test_a_smooth_field_reproduces_straight_lines_and_stays_within_its_control_values() -> None:
    # Control k of an axis lies k - 1 spacings from the edge, spacing 48 / 4 = 12 along W.
    control = (torch.arange(7.0) - 1).expand(1, 1, *control_shape((2, 4)))
    field = smooth_field(control, (2, 4), (32, 48))
    expected = ((torch.arange(48) + 0.5) / 12).expand(1, 1, 32, 48)
    assert torch.allclose(field, expected, atol=1e-5)
    drawn = _draws(8).uniform(1.0, 1, *control_shape((2, 4)))
    assert smooth_field(drawn, (2, 4), (32, 48)).abs().max() <= 1


def test_displacements_stay_within_their_extent_and_never_fold() -> None:
    # At strength 1, half of the slices of 96 x 160 are bent, with 4 x 7 intervals: the
    # spacing is 160 / 7 = 22.9 voxels, a fifth of it 4.57.
    displacement = draw_displacement(_draws(200), 1.0, (96, 160))
    bent = displacement.abs().amax(dim=(1, 2, 3)) > 0
    assert 70 <= bent.sum() <= 130
    assert displacement.abs().max() <= 160 / 7 / 5
    assert displacement.abs().max() > 2
    x_by_x, y_by_x = displacement.diff(dim=3)[:, :, :-1].unbind(dim=1)
    x_by_y, y_by_y = displacement.diff(dim=2)[:, :, :, :-1].unbind(dim=1)
    assert (x_by_x.abs() + x_by_y.abs()).max() < 0.8
    assert ((1 + x_by_x) * (1 + y_by_y) - x_by_y * y_by_x).min() > 0


def test_strength_sets_how_far_and_how_often_slices_bend() -> None:
    displacement = draw_displacement(_draws(400), 0.25, (64, 64))
    bent = displacement.abs().amax(dim=(1, 2, 3)) > 0
    # An eighth of 400; a twentieth of the spacing of 16.
    assert 25 <= bent.sum() <= 75
    assert displacement.abs().max() <= 0.8


def test_bending_moves_a_mask_with_its_image() -> None:
    masks = _rectangle((96, 96), slice(30, 50), slice(40, 70)).repeat(32, 1, 1, 1)
    displacement = draw_displacement(_draws(32), 1.0, (96, 96))
    places = look_up(torch.eye(3).expand(32, 3, 3), displacement)
    images, moved = deform(masks.clone(), masks, places)
    assert not torch.equal(moved, masks)
    # Each mask is its image cut at a half, except at corners, where the two ways of looking
    # between voxels differ: a few of some 600 voxels.
    assert ((images > 0.5) != (moved > 0)).sum(dim=(1, 2, 3)).max() <= 12


def test_lesion_volumes_are_kept_on_average() -> None:
    # Scaling by 1 + u, u even within 0.15, makes areas 1 + 0.15^2 / 3 = 1.0075 as large on
    # average; bending is symmetric about 0. The standard deviation is about 0.18 a slice,
    # of the mean of 400 below 0.01.
    masks = _rectangle((96, 96), slice(40, 52), slice(44, 60)).repeat(400, 1, 1, 1)
    places = draw_deformation(_draws(400), 1.0, (96, 96), flip=True)
    _, moved = deform(masks, masks, places)
    volumes = moved.sum(dim=(1, 2, 3)) / (12 * 16)
    assert abs(volumes.mean() - 1.0075) < 0.03
    assert volumes.min() > 0.4
    assert volumes.max() < 2
