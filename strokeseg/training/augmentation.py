"""Augmentation: the same slices, seen a little differently.

A *batch* is changed at once, on its own device, every slice by its own draw. *Background*
is what is 0 in every channel; it stays 0. How far a change goes is proportional to the
*strength*, from 0 (the very same batch) to 1.
"""

from __future__ import annotations

import math

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from strokeseg.training.deformation import deform, draw_deformation
from strokeseg.training.draws import Draws
from strokeseg.training.smooth_field import control_shape, smooth_field

# Full extents, at strength 1.
_BLURRED = 0.4
_BLUR_VOXELS = 1.0
_BIAS = 0.5
_GAMMA = 0.3
_CONTRAST = 0.25
_BRIGHTNESS = 0.2
_NOISE = 0.1

_BIAS_INTERVALS = (2, 2)


def augment(
    images: Tensor,
    masks: Tensor,
    strength: float,
    generator: torch.Generator,
    *,
    flip: bool = True,
) -> tuple[Tensor, Tensor]:
    """Change every slice of a batch at random.

    In space: flipped with probability strength / 2, turned by up to 15 degrees, scaled by
    up to 15 %, moved by up to 5 % of the slice, and bent with probability strength / 2. In
    intensity, channel by channel: blurred with probability 0.4 strength by up to 1 voxel, a
    bias field of up to 1.5 or its inverse, gamma up to 1.3 or its inverse, contrast up to
    25 %, brightness up to 0.2 standard deviations. Gaussian noise of up to 0.1.

    Args:
        images: (B, C, H, W) float32, z-scored in the brain, 0 outside.
        masks: (B, 1, H, W) float32, 0 or 1.
        strength: 0 to 1; the extents above times this.
        generator: The source of every draw, on the tensors' device.
        flip: Whether to reverse slices along H. That is left and right in axial and
            coronal slices; in sagittal ones it would put the face to the back.

    Returns:
        Images and masks of the same shapes, the images in channels-last memory; the masks
        still 0 or 1, moved with the images.
    """
    if strength <= 0:
        return images, masks
    draws = Draws(generator, len(images))
    channels, height, width = images.shape[1:]
    places = draw_deformation(draws, strength, (height, width), flip=flip)
    images, masks = deform(images, masks, places)
    background = (images == 0).all(dim=1, keepdim=True)
    images = blur(images, draw_blur(draws, strength, channels))
    images = bend_intensities(
        images,
        field=draw_bias_field(draws, strength, channels, (height, width)),
        gamma=torch.exp(draws.uniform(strength * math.log1p(_GAMMA), channels, 1, 1)),
    )
    contrast = 1 + draws.uniform(strength * _CONTRAST, channels, 1, 1)
    brightness = draws.uniform(strength * _BRIGHTNESS, channels, 1, 1)
    noise = draws.normal(channels, height, width) * draws.uniform(strength * _NOISE, 1, 1, 1)
    images = torch.addcmul(brightness, images, contrast).add_(noise)
    images = images.masked_fill_(background, 0.0)
    return images.contiguous(memory_format=torch.channels_last), masks


def draw_blur(draws: Draws, strength: float, channels: int) -> Tensor:
    """Draw (B, C) standard deviations of a blur in voxels, 0 where there is none."""
    blurred = draws.chances(strength * _BLURRED, channels)
    return draws.uniform(strength * _BLUR_VOXELS, channels).abs() * blurred


def blur(images: Tensor, sigma_voxels: Tensor) -> Tensor:
    """Blur the channels of images (B, C, H, W) by Gaussians, maybe in place.

    Background takes part as the 0 that it is, the mean of the brain.

    Args:
        images: Float32 in plain contiguous memory.
        sigma_voxels: (B, C), 0 to 1; channels of 0 are left alone.
    """
    chosen = sigma_voxels > 0
    if images.is_cuda:
        # To look for the channels, the CPU would have to wait for the GPU.
        kernels = get_gaussian_kernel1d(7, sigma_voxels.clamp_min(1e-3).flatten()[:, None])
        blurred = filter2d_separable(images.flatten(0, 1)[:, None], kernels, kernels)
        return torch.where(chosen[..., None, None], blurred.view_as(images), images)
    # To blur all of them costs a CPU up to ten times as much.
    kernels = get_gaussian_kernel1d(7, sigma_voxels[chosen][:, None])
    if len(kernels):
        blurred = filter2d_separable(images[chosen][:, None], kernels, kernels)
        images[chosen] = blurred[:, 0]
    return images


def draw_bias_field(draws: Draws, strength: float, channels: int, size: tuple[int, int]) -> Tensor:
    """Draw the uneven sensitivity of a scanner's coil, for each sequence by itself.

    The logarithm is a smooth field of control values half a slice apart, symmetric about 0.

    Returns:
        (B, C, H, W) float32, 1.5 ** -strength to 1.5 ** strength, of mean about 1.

    Source:
        Sled et al., A nonparametric method for automatic correction of intensity
        nonuniformity in MRI data, IEEE TMI 1998; as a B-spline, Tustison et al., N4ITK, 2010.
    """
    control = draws.uniform(strength * math.log1p(_BIAS), channels, *control_shape(_BIAS_INTERVALS))
    return smooth_field(control, _BIAS_INTERVALS, size).exp_()


def bend_intensities(images: Tensor, *, field: Tensor, gamma: Tensor) -> Tensor:
    """Multiply images by a field, then bend them by a power.

    A scanner's signal is 0 where there is nothing, z-scored intensities where the brain is
    average. So both act on what lies above each channel's lowest value, which stands for no
    signal: fluid in most sequences. That value is kept, and by the power the highest one too.

    Args:
        images: (B, C, H, W) float32.
        field: (B, C, H, W) float32, positive.
        gamma: (B, C, 1, 1) float32, positive.

    Returns:
        (B, C, H, W) float32.
    """
    lowest = images.amin(dim=(2, 3), keepdim=True)
    signal = (images - lowest) * field
    highest = signal.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    return torch.addcmul(lowest, (signal / highest).pow(gamma), highest)
