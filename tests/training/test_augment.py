"""Batched augmentation."""

from __future__ import annotations

import math

import pytest
import torch

from strokeseg.training.augmentation import augment, bend_intensities, blur, draw_bias_field
from strokeseg.training.draws import Draws


def _batch(count: int = 4, height: int = 32, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in a rectangle of brain, with a bright lesion off its centre."""
    images = torch.zeros(count, 2, height, width)
    images[:, :, 6:-6, 8:-8] = torch.randn(
        count, 2, height - 12, width - 16, generator=torch.Generator().manual_seed(0)
    )
    masks = torch.zeros(count, 1, height, width)
    masks[:, :, 8:16, 12:22] = 1
    images = (images + 6 * masks).contiguous(memory_format=torch.channels_last)
    return images, masks


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(count: int) -> Draws:
    return Draws(_generator(), count)


def test_strength_zero_changes_nothing() -> None:
    images, masks = _batch()
    changed, moved = augment(images, masks, 0.0, _generator())
    assert changed is images
    assert moved is masks


def test_shapes_memory_and_the_given_batch_are_kept() -> None:
    images, masks = _batch()
    before = images.clone()
    changed, moved = augment(images, masks, 1.0, _generator())
    assert changed.shape == images.shape
    assert moved.shape == masks.shape
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert changed.isfinite().all()
    assert torch.equal(images, before)


def test_equal_generators_give_equal_batches_and_slices_differ_from_each_other() -> None:
    images, masks = _batch()
    images, masks = images[:1].repeat(4, 1, 1, 1), masks[:1].repeat(4, 1, 1, 1)
    first, again, other = (augment(images, masks, 0.5, _generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.allclose(first[0], first[1])


def test_torchs_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    augment(*_batch(), 1.0, _generator())
    assert torch.equal(torch.get_rng_state(), before)


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
    # Without brain, nothing that acts on the slice may leave a trace of itself.
    images, masks = torch.zeros(8, 2, 32, 48), torch.zeros(8, 1, 32, 48)
    changed, _ = augment(images, masks, 1.0, _generator())
    assert (changed == 0).all()
    # A brain of 2 x 2 voxels covers at most a square of 2 * sqrt(2) * 1.18 < 4 voxels a side,
    # one more on each side by interpolation, and bending adds 80 % a side: below 11 x 11.
    images[:, :, 15:17, 23:25] = 1
    changed, _ = augment(images, masks, 1.0, _generator())
    filled = (changed != 0).any(dim=1).sum(dim=(1, 2))
    assert (filled >= 4).all()
    assert (filled <= 121).all()


def test_flipping_reverses_the_first_axis_of_about_half_the_slices() -> None:
    images, masks = _batch(64)
    top = masks[:, 0, :16].sum(dim=(1, 2))
    assert (top == 80).all()
    moved = augment(images, masks, 1.0, _generator())[1]
    flipped = (moved[:, 0, 16:].sum(dim=(1, 2)) > moved[:, 0, :16].sum(dim=(1, 2))).sum()
    assert 16 <= flipped <= 48
    kept = augment(images, masks, 1.0, _generator(), flip=False)[1]
    assert (kept[:, 0, :16].sum(dim=(1, 2)) > kept[:, 0, 16:].sum(dim=(1, 2))).all()


def test_extents_grow_with_the_strength() -> None:
    images, masks = _batch(32)
    differences = [
        (augment(images, masks, strength, _generator(), flip=False)[0] - images).abs().mean()
        for strength in (0.01, 0.1, 1.0)
    ]
    assert differences == sorted(differences)
    assert differences[0] < 0.1


def test_blur_lowers_the_variance_of_noise_and_keeps_means() -> None:
    noise = torch.randn(2, 2, 128, 128, generator=_generator()) + 3
    blurred = blur(noise.clone(), torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    # A Gaussian of s voxels leaves 1 / (4 pi s^2) of the variance: 0.080 for s = 1. For s = 0.5
    # the kernel is too coarse for that, its squares sum to (0.108^2 * 2 + 0.787^2)^2 = 0.413.
    assert blurred[0, 0].var() == pytest.approx(1 / (4 * math.pi), rel=0.1)
    assert blurred[1, 0].var() == pytest.approx(0.413, rel=0.1)
    assert torch.allclose(blurred.mean(dim=(2, 3)), noise.mean(dim=(2, 3)), atol=0.01)
    assert torch.equal(blurred[:, 1], noise[:, 1])


def test_bias_fields_are_positive_smooth_and_about_one() -> None:
    fields = draw_bias_field(_draws(64), 1.0, 4, (96, 64))
    assert fields.min() >= 1 / 1.5
    assert fields.max() <= 1.5
    # An exponential of what is even between -a and a has the mean sinh(a) / a, 1.028 for
    # a = log 1.5, and being a mean of several a spline's value spreads less.
    assert 1 < fields.mean() < 1.028
    # Slopes of the logarithm are at most 2 a / spacing, spacings 48 and 32 voxels.
    logarithm = fields.log()
    assert logarithm.diff(dim=2).abs().max() <= 2 * math.log(1.5) / 48
    assert logarithm.diff(dim=3).abs().max() <= 2 * math.log(1.5) / 32
    # Every sequence has its own.
    assert not torch.allclose(fields[:, 0], fields[:, 1], atol=0.01)


def test_bending_keeps_the_lowest_value_and_gamma_the_highest() -> None:
    # Lowest -2, highest 2, middle 0 at half of 4. Gamma 2 puts it to a quarter: -2 + 1. A
    # field of 1.5 makes signals of 0, 3, 6 and with gamma 1 values of -2, 1, 4.
    images = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)
    one = torch.ones(1, 1, 1, 1)
    power = bend_intensities(images, field=torch.ones_like(images), gamma=2 * one)
    assert torch.allclose(power, torch.tensor([-2.0, -1.0, 2.0]))
    multiplied = bend_intensities(images, field=1.5 * torch.ones_like(images), gamma=one)
    assert torch.allclose(multiplied, torch.tensor([-2.0, 1.0, 4.0]))
