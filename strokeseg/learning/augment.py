"""Augmentation: the same slices, seen a little differently.

A *batch* is changed at once, on its own device, every slice by its own draw. *Background*
is what is 0 in every channel; it stays 0. How far a change goes is proportional to the
*strength*, from 0 (the very same batch) to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Full extents, at strength 1.
_ROTATION_DEGREES = 15.0
_SCALING = 0.15
_SHIFT = 0.05
_CONTRAST = 0.25
_BRIGHTNESS = 0.2
_GAMMA = 0.3
_NOISE = 0.1


def augment(
    images: Tensor,
    masks: Tensor,
    strength: float,
    generator: torch.Generator,
    *,
    mirror: bool = True,
) -> tuple[Tensor, Tensor]:
    """Change every slice of a batch at random.

    In space: mirrored with probability strength / 2, rotated by up to 15 degrees, scaled by
    up to 15 %, moved by up to 5 % of the slice. In intensity, channel by channel: gamma up
    to 1.3 or its inverse, contrast up to 25 %, brightness up to 0.2 standard deviations, and
    Gaussian noise of up to 0.1.

    Args:
        images: (B, C, H, W) float32, z-scored in the brain, 0 outside.
        masks: (B, 1, H, W) float32, 0 or 1.
        strength: 0 to 1; the extents above times this.
        generator: The source of every draw, on the tensors' device.
        mirror: Whether to reverse slices along H. That is left and right in axial and
            coronal slices; in sagittal ones it would put the face to the back.

    Returns:
        Images and masks of the same shapes; the masks still 0 or 1, moved with the images.
    """
    if strength <= 0:
        return images, masks
    draws = _Draws(generator, images)
    affine = _draw_affine(draws, strength, ratio=images.shape[2] / images.shape[3], mirror=mirror)
    images, masks = move(images, masks, affine)
    background = (images == 0).all(dim=1, keepdim=True)
    images = _change_gamma(images, torch.exp(draws.channels(strength * math.log1p(_GAMMA))))
    images = images * (1 + draws.channels(strength * _CONTRAST))
    images = images + draws.channels(strength * _BRIGHTNESS)
    noise = torch.empty_like(images).normal_(generator=generator)
    images = images + noise * draws.slices(strength * _NOISE).abs().view(-1, 1, 1, 1)
    return images.masked_fill(background, 0.0), masks


class _Draws:
    """Uniform draws from -extent to extent, one a slice or one a channel of it."""

    def __init__(self, generator: torch.Generator, images: Tensor) -> None:
        self._generator = generator
        self._images = images

    def slices(self, extent: float) -> Tensor:
        """Return (B,)."""
        return self._draw((len(self._images),), extent)

    def channels(self, extent: float) -> Tensor:
        """Return (B, C, 1, 1)."""
        return self._draw((*self._images.shape[:2], 1, 1), extent)

    def _draw(self, shape: tuple[int, ...], extent: float) -> Tensor:
        unit = torch.rand(shape, generator=self._generator, device=self._images.device)
        return (unit * 2 - 1) * extent


def _draw_affine(draws: _Draws, strength: float, *, ratio: float, mirror: bool) -> Tensor:
    angle = draws.slices(strength * math.radians(_ROTATION_DEGREES))
    scale = 1 + draws.slices(strength * _SCALING)
    mirrored = draws.slices(1.0).abs() < strength / 2
    shift = torch.stack([draws.slices(strength * 2 * _SHIFT) for _ in "xy"], dim=-1)
    sign = torch.where(mirrored & mirror, -1.0, 1.0)
    return affine_of(angle, scale, sign, shift, ratio)


def affine_of(angle: Tensor, scale: Tensor, sign: Tensor, shift: Tensor, ratio: float) -> Tensor:
    """Return where in the input each place of the output looks.

    Places are (x, y), along W and H, both from -1 to 1 whatever the slice's shape.

    Args:
        angle: (B,) of the rotation, in radians.
        scale: (B,) magnification.
        sign: (B,) 1, or -1 to reverse the slice along H.
        shift: (B, 2) in (x, y).
        ratio: H / W.

    Returns:
        (B, 2, 3) float32.
    """
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    linear = torch.stack([cosine, -sine * ratio, sine / ratio * sign, cosine * sign], dim=-1)
    return torch.cat([linear.view(-1, 2, 2), shift[..., None]], dim=-1)


def move(images: Tensor, masks: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Sample images (B, C, H, W) linearly and masks (B, 1, H, W) at the nearest place."""
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return (
        functional.grid_sample(images, grid, mode="bilinear", align_corners=False),
        functional.grid_sample(masks, grid, mode="nearest", align_corners=False),
    )


def _change_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """Bend each channel's intensities by a power, keeping its lowest and highest value."""
    low = images.amin(dim=(2, 3), keepdim=True)
    extent = (images.amax(dim=(2, 3), keepdim=True) - low).clamp_min(1e-6)
    return ((images - low) / extent).pow(gamma) * extent + low
