"""Random draws for the slices of a batch.

A *draw* is one random number, or an array of them, for every slice of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Draws for B slices, out of one generator and on its device."""

    def __init__(self, generator: torch.Generator, slices: int) -> None:
        self._generator = generator
        self._slices = slices

    def uniform(self, extent: float, *shape: int) -> Tensor:
        """Return (B, *shape) float32, even between -extent and extent."""
        return self._unit(shape).mul_(2).sub_(1).mul_(extent)

    def chances(self, probability: float, *shape: int) -> Tensor:
        """Return (B, *shape) bool, true with a probability of 0 to 1."""
        return self._unit(shape) < probability

    def normal(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32 of mean 0 and standard deviation 1."""
        return torch.randn(
            self._slices, *shape, generator=self._generator, device=self._generator.device
        )

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(
            self._slices, *shape, generator=self._generator, device=self._generator.device
        )
