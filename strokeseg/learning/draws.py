"""Random draws for the slices of a batch.

A *draw* is one random number, or an array of them, for every slice of a batch. A *share* is
what one of several workers holds of a batch. Every worker draws for the whole batch, by a
generator in the same state, and keeps what belongs to its share: so the workers' slices put
together are those that one worker would have made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Share:
    """Every `workers`-th slice of a batch, from the `rank`-th on.

    Attributes:
        rank: The worker's number, 0 to workers - 1.
        workers: How many workers share the batch.
        count: Slices of the whole batch.
    """

    rank: int
    workers: int
    count: int

    @property
    def rows(self) -> slice:
        """The share's places in the whole batch."""
        return slice(self.rank, None, self.workers)

    @property
    def size(self) -> int:
        """Slices of the share, perhaps none."""
        return len(range(self.rank, self.count, self.workers))


class Draws:
    """Draws for a share of B slices, out of one generator and on its device."""

    def __init__(self, generator: torch.Generator, share: Share) -> None:
        self._generator = generator
        self._share = share

    def uniform(self, extent: float, *shape: int) -> Tensor:
        """Return (B, *shape) float32, even between -extent and extent."""
        return self._unit(shape).mul_(2).sub_(1).mul_(extent)

    def chances(self, probability: float, *shape: int) -> Tensor:
        """Return (B, *shape) bool, true with a probability of 0 to 1."""
        return self._unit(shape) < probability

    def normal(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32 of mean 0 and standard deviation 1."""
        whole = torch.randn(
            self._share.count, *shape, generator=self._generator, device=self._generator.device
        )
        return whole[self._share.rows]

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        whole = torch.rand(
            self._share.count, *shape, generator=self._generator, device=self._generator.device
        )
        return whole[self._share.rows]
