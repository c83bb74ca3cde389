"""One member over one volume.

The network gets the very slices that training saw: cut, rounded to float16, padded. A
slice without brain is lesion-free without asking it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strokeseg.imaging import slices
from strokeseg.learning.precision import autocast, reduced_type
from strokeseg.learning.slice_set import hold_brain


def predict_volume(
    network: nn.Module,
    images: NDArray[np.float32],
    axis: str,
    *,
    slice_size: tuple[int, int] | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Return the probability of lesion in every voxel, as one network sees it.

    Args:
        network: Logits (B, 1, H, W) of slices (B, C, H, W); in evaluation mode and on
            `device` afterwards.
        images: (C, X, Y, Z) float32 in RAS+ order, prepared as for training.
        axis: One of `slices.AXES`, the one that the network was trained on.
        slice_size: (H, W) of the slices in training; where they are missing or too small
            for this volume, the smallest multiples of 32 that hold its slices.
        batch_size: Slices at once.
        device: Where to compute.

    Returns:
        (X, Y, Z) float32, 0 to 1.

    Raises:
        ValueError: When the network gives numbers that are not finite.
    """
    cut = slices.cut(images, axis).astype(np.float16)
    height, width = cut.shape[-2:]
    size = slices.slice_size(_spatial(images), axis)
    if slice_size is not None and height <= slice_size[0] and width <= slice_size[1]:
        size = slice_size
    padded = slices.pad(cut, size)
    probability = np.zeros((len(padded), *size), dtype=np.float32)
    # Module.to knows memory formats, but its declaration does not.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    device = torch.device(device)
    # A bundle shall give one mask on every CPU, whether or not it can compute in 16 bits.
    reduced = None if device.type == "cpu" else reduced_type(device, network)
    asked = np.flatnonzero(hold_brain(padded))
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        tensor = torch.from_numpy(padded[batch]).to(device).to(torch.float32)
        probability[batch] = predict_batch(network, tensor, reduced)[:, 0].cpu().numpy()
    if not np.isfinite(probability).all():
        raise ValueError("the network's probabilities must be finite, got infinite or no numbers")
    return np.ascontiguousarray(slices.join(slices.unpad(probability, (height, width)), axis))


def predict_batch(network: nn.Module, images: Tensor, reduced: torch.dtype | None = None) -> Tensor:
    """Return a batch's probabilities, without gradients; 0 outside the brain.

    What is 0 in every sequence is no brain, or padding, which the way back to the volume cuts
    off: counting it would make the score of slices differ from that of the volume. What overflows
    in reduced precision is computed again in float32.

    Args:
        network: In evaluation mode, on the images' device.
        images: (B, C, H, W) float32.
        reduced: The 16-bit type to compute in; nothing for float32.

    Returns:
        (B, 1, H, W) float32, 0 to 1.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        with autocast(images.device, reduced):
            logits: Tensor = network(images)
        if reduced is not None and not logits.isfinite().all():
            logits = network(images)
        brain = (images != 0).any(dim=1, keepdim=True)
        return torch.sigmoid(logits.float()) * brain


def _spatial(images: NDArray[np.float32]) -> tuple[int, int, int]:
    x, y, z = images.shape[1:]
    return x, y, z
