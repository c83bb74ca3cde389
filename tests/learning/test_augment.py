"""Batched augmentation."""

from __future__ import annotations

import math

import torch

from strokeseg.learning.augment import affine_of, augment, move


def _batch(count: int = 4, height: int = 32, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in a rectangle of brain, with a bright lesion off its centre."""
    images = torch.zeros(count, 2, height, width)
    images[:, :, 6:-6, 8:-8] = torch.randn(
        count, 2, height - 12, width - 16, generator=torch.Generator().manual_seed(0)
    )
    masks = torch.zeros(count, 1, height, width)
    masks[:, :, 8:16, 12:22] = 1
    return images + 6 * masks, masks


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strength_zero_changes_nothing() -> None:
    images, masks = _batch()
    changed, moved = augment(images, masks, 0.0, _generator())
    assert changed is images
    assert moved is masks


def test_equal_generators_give_equal_batches_and_slices_differ_from_each_other() -> None:
    images, masks = _batch()
    images, masks = images[:1].repeat(4, 1, 1, 1), masks[:1].repeat(4, 1, 1, 1)
    first, again, other = (augment(images, masks, 0.5, _generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.allclose(first[0], first[1])


def test_masks_stay_binary_and_move_with_the_images() -> None:
    images, masks = _batch(16)
    changed, moved = augment(images, masks, 1.0, _generator())
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(moved, masks)
    # The lesion is 6 brighter than the noise around it, before and after.
    inside = changed[moved.expand_as(changed) > 0].mean()
    assert inside > 4
    assert abs(changed[moved.expand_as(changed) == 0].mean()) < 1


def test_background_stays_zero() -> None:
    images, masks = _batch()
    changed, _ = augment(images, masks, 1.0, _generator())
    # 5 % scaling, shift and rotation cannot bring brain into the corners.
    assert (changed[:, :, 0, 0] == 0).all()
    assert (changed[:, :, -1, -1] == 0).all()


def test_mirroring_reverses_the_first_axis_of_about_half_the_slices() -> None:
    images, masks = _batch(64)
    top = masks[:, 0, :16].sum(dim=(1, 2))
    assert (top == 80).all()
    moved = augment(images, masks, 1.0, _generator())[1]
    mirrored = (moved[:, 0, 16:].sum(dim=(1, 2)) > moved[:, 0, :16].sum(dim=(1, 2))).sum()
    assert 16 <= mirrored <= 48
    kept = augment(images, masks, 1.0, _generator(), mirror=False)[1]
    assert (kept[:, 0, :16].sum(dim=(1, 2)) > kept[:, 0, 16:].sum(dim=(1, 2))).all()


def test_a_rotation_keeps_the_shape_of_things_in_oblong_slices() -> None:
    # A rectangle of 16 rows and 8 columns, 16 to 24 columns right of the centre of a slice
    # of 64 x 128, is turned by 90 degrees about the centre: 8 rows, 16 columns, 16 to 24
    # rows above it (rows 32 - 24 = 8 to 16, columns 64 - 8 = 56 to 72).
    masks = torch.zeros(1, 1, 64, 128)
    masks[0, 0, 24:40, 80:88] = 1
    expected = torch.zeros(1, 1, 64, 128)
    expected[0, 0, 8:16, 56:72] = 1
    one = torch.ones(1)
    affine = affine_of(one * math.pi / 2, one, one, torch.zeros(1, 2), 64 / 128)
    assert torch.equal(move(masks, masks, affine)[1], expected)


def test_scaling_magnifies() -> None:
    # Twice as large: rows 24..39 of 64 become 16..47, in both directions.
    masks = torch.zeros(1, 1, 64, 64)
    masks[0, 0, 24:40, 24:40] = 1
    expected = torch.zeros(1, 1, 64, 64)
    expected[0, 0, 16:48, 16:48] = 1
    one = torch.ones(1)
    affine = affine_of(one * 0, one * 2, one, torch.zeros(1, 2), 1.0)
    assert torch.equal(move(masks, masks, affine)[1], expected)
