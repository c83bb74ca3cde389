"""One training over several processes.

The *world* is the processes that train one network together, each on a device of its own and
each knowing its *rank*. Every batch is dealt out to them row by row; what is learned of it is
what one process would have learned of the whole batch, but for rounding: batch statistics are
taken over all, the loss over the whole batch. All ranks reach the same numbers, so that they
take the same decisions without asking each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from strokeseg.learning.batch_norm import share_statistics

Known = TypeVar("Known")


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a training, and which of them this is.

    Where there are several, torch's process group must stand before anything here is called.

    Attributes:
        rank: This process's number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def share(self) -> slice:
        """Which rows of a batch are this rank's."""
        return slice(self.rank, None, self.size)

    def spread(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return a network to call in training: its gradients are the whole world's.

        The network itself, whose weights it shares, gets batch statistics of all ranks.
        """
        if self.size == 1:
            return network
        share_statistics(network, device)
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def whole(self, rows: Tensor, count: int) -> Tensor:
        """Put a batch together of all ranks' rows.

        Args:
            rows: (b, ...) this rank's, which alone keep their gradient.
            count: Rows of the whole batch.

        Returns:
            (count, ...), the rows in the batch's order.
        """
        if self.size == 1:
            return rows
        # All ranks must send alike, so the shorter ones are filled up.
        most = -(-count // self.size)
        sent = rows.new_zeros((most, *rows.shape[1:]))
        sent[: len(rows)] = rows.detach()
        came = [torch.empty_like(sent) for _ in range(self.size)]
        distributed.all_gather(came, sent)
        whole = torch.stack(came, dim=1).flatten(0, 1)[:count]
        whole[self.share] = rows
        return whole

    def agree(self, value: Known) -> Known:
        """Return what rank 0 knows, whatever the others do.

        Args:
            value: Plain values and tensors on the CPU.
        """
        if self.size == 1:
            return value
        values = [value if self.rank == 0 else None]
        distributed.broadcast_object_list(values, weights_only=True)
        (known,) = values
        return cast(Known, known)

    def add_up(self, numbers: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers


ALONE = World()
