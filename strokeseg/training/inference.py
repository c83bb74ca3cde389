"""One network over one batch of slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strokeseg.training.precision import autocast


def predict_batch(network: nn.Module, images: Tensor, reduced: torch.dtype | None = None) -> Tensor:
    """Return a batch's probabilities, without gradients; 0 outside the brain.

    What is 0 in every sequence is no brain, or padding, which the way back to the volume cuts
    off: counting it would make the score of slices differ from that of the volume. What overflows
    in reduced precision is computed again in float32.

    Args:
        network: In evaluation mode, on the images' device.
        images: (B, C, H, W) float32.
        reduced: The 16-bit type to compute in; None for float32.

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
