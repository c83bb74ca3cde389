"""Batch normalisation over the whole batch of a training in several processes.

torch's synchronised batch normalisation works on GPUs alone. On CPUs the same sums are taken
here, so that a training over several processes can be tried, and tested, without any GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, distributed, nn


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Let a network's batch normalisations see the batches of all processes.

    Weights, running statistics and their names stay what they are.
    """
    convert_sync_batchnorm(network)
    if device.type == "cpu":
        for module in network.modules():
            if isinstance(module, nn.SyncBatchNorm):
                # What differs is how they compute; timm's kind also acts on what comes out.
                acts = isinstance(module, SyncBatchNormAct)
                module.__class__ = _CpuBatchNormAct if acts else _CpuBatchNorm


class _AllSum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, numbers: Tensor) -> Tensor:
        return _summed(numbers)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(numbers: Tensor) -> Tensor:
    total = numbers.contiguous().clone()
    distributed.all_reduce(total)
    return total


def _all_sum(numbers: Tensor) -> Tensor:
    total: Tensor = _AllSum.apply(numbers)
    return total


class _CpuBatchNorm(nn.SyncBatchNorm):
    """Mean and variance over all processes' rows and pixels.

    Source:
        Ioffe and Szegedy, Batch Normalization, ICML 2015.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (b, C, H, W), b rows of a batch that others have the rest of."""
        if not self.training:
            plain: Tensor = nn.functional.batch_norm(
                *(input, self.running_mean, self.running_var, self.weight, self.bias),
                eps=self.eps,
            )
            return plain
        pixels = input.new_tensor([input.numel() / input.shape[1]])
        sums = _all_sum(torch.cat([input.sum(dim=(0, 2, 3)), pixels]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean[:, None, None]
        variance = _all_sum(centred.square().sum(dim=(0, 2, 3))) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _keep(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        # Without a momentum torch averages over all batches so far.
        share = 1 / int(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_variance, share)


class _CpuBatchNormAct(SyncBatchNormAct, _CpuBatchNorm):  # type: ignore[misc]
    """timm's kind: an activation follows."""
