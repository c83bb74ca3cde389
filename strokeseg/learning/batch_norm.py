"""Batch normalisation over the whole batch of a training in several processes.

torch's synchronised batch normalisation works on GPUs alone. On CPUs the same sums are taken
here, so that a training over several processes can be tried, and tested, without any GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn import functional


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Let a network's batch normalisations see the batches of all processes.

    Weights, running statistics and their names stay what they are.
    """
    if device.type != "cpu":
        convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = _CpuBatchNormAct
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = _CpuBatchNorm


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


class _CpuBatchNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return _normalise(self, input)


class _CpuBatchNormAct(BatchNormAct2d):  # type: ignore[misc]
    """timm's kind: an activation follows."""

    def forward(self, input: Tensor) -> Tensor:
        acted: Tensor = self.act(self.drop(_normalise(self, input)))
        return acted


def _normalise(layer: nn.BatchNorm2d, input: Tensor) -> Tensor:
    """Normalise (b, C, H, W), b rows of a batch that other processes have the rest of.

    Source:
        Ioffe and Szegedy, Batch Normalization, ICML 2015.
    """
    if not layer.training:
        return functional.batch_norm(
            *(input, layer.running_mean, layer.running_var, layer.weight, layer.bias),
            eps=layer.eps,
        )
    # Sums over whole batches need more than 16 bits.
    rows = input.float()
    pixels = rows.new_tensor([rows.numel() / rows.shape[1]])
    sums = _all_sum(torch.cat([rows.sum(dim=(0, 2, 3)), pixels]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = rows - mean[:, None, None]
    variance = _all_sum(centred.square().sum(dim=(0, 2, 3))) / count
    _keep(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    scale = torch.rsqrt(variance + layer.eps) * layer.weight
    normalised = centred * scale[:, None, None] + layer.bias[:, None, None]
    return normalised.to(input.dtype)


def _keep(layer: nn.BatchNorm2d, mean: Tensor, unbiased_variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None:
        return
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked += 1
    # Without a momentum torch averages over all batches so far.
    batches = int(layer.num_batches_tracked or 1)
    share = 1 / batches if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(unbiased_variance, share)
