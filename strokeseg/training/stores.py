"""Where slices lie, and how a batch of them comes from there.

A *store* holds slices of one axis, all of one size, and knows them by their *row*. It holds
them on a device, in memory that was mapped (Ray's object store, as all trials of a node see
it), or unpacked in one file. All give the same batches; only the time that they take differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strokeseg.imaging.unpacked import read_unpacked

_FILE_READERS = 4


class Store(Protocol):
    """Slices by their rows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every slice."""

    def __len__(self) -> int:
        """Number of slices."""

    def fetch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a batch as it is stored.

        Args:
            rows: (B,) int64, repeats allowed.
            device: Where the tensors shall be.

        Returns:
            Images (B, C, H, W) float16 and masks (B, 1, H, W) uint8.
        """

    def readers(self, device: torch.device) -> int:
        """How many threads are worth reading ahead for a device; 0 where it gains nothing."""


class MappedSlices:
    """Slices in blocks of memory, which are never written to.

    Args:
        images: Blocks (N_i, C, H, W) float16, z-scored intensities; read-only views will do.
        masks: The same blocks (N_i, H, W) uint8, 0 or 1.

    Raises:
        ValueError: When the blocks do not fit each other.
    """

    def __init__(
        self, images: Sequence[NDArray[np.float16]], masks: Sequence[NDArray[np.uint8]]
    ) -> None:
        if len(images) == 0:
            raise ValueError("slices need one block or more, got none")
        if any(block.shape[1:] != images[0].shape[1:] for block in images):
            shapes = sorted({block.shape[1:] for block in images})
            raise ValueError(f"all blocks must share channels and size, got {shapes}")
        sizes = [(len(block), *block.shape[2:]) for block in images]
        if sizes != [block.shape for block in masks]:
            raise ValueError(
                f"masks must match the images block by block {sizes}, "
                f"got {[block.shape for block in masks]}"
            )
        self.images, self.masks = tuple(images), tuple(masks)
        self._starts = np.cumsum([0, *(len(block) for block in images)])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every slice."""
        channels, height, width = self.images[0].shape[1:]
        return int(channels), int(height), int(width)

    def __len__(self) -> int:
        """Number of slices."""
        return int(self._starts[-1])

    def fetch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Copy the rows together; see `Store`."""
        images, masks = _room_for(len(rows), self.shape, device)
        image_rows, mask_rows = images.numpy(), masks.numpy()
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        # Indexing one tensor of float16 takes three times as long as these copies of whole rows.
        for place, (block, row) in enumerate(zip(blocks, rows - self._starts[blocks], strict=True)):
            image_rows[place] = self.images[block][row]
            mask_rows[place, 0] = self.masks[block][row]
        return images.to(device, non_blocking=True), masks.to(device, non_blocking=True)

    def readers(self, device: torch.device) -> int:
        """Ahead of a GPU the copying is worth a thread; on a CPU it would only take a core."""
        return 0 if device.type == "cpu" else 1


class UnpackedSlices:
    """Slices in a file as `imaging.unpacked` makes it.

    Args:
        path: The file; it may lose its name once it is open.
        count: Its slices.
        shape: Channels, height and width of every slice.

    Raises:
        OSError: When there is no such file.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._count = count
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        """Number of slices."""
        return self._count

    def fetch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Read the rows into place; see `Store`."""
        images, masks = _room_for(len(rows), self.shape, device)
        image_rows, mask_rows = images.numpy(), masks.numpy()
        for place, row in enumerate(rows.tolist()):
            read_unpacked(self._file.fileno(), row, image_rows[place], mask_rows[place, 0])
        return images.to(device, non_blocking=True), masks.to(device, non_blocking=True)

    def readers(self, device: torch.device) -> int:
        """As for mapped slices, but a disk serves several threads better than one."""
        return 1 if device.type == "cpu" else _FILE_READERS


class DeviceSlices:
    """Slices on a device.

    Args:
        images: (N, C, H, W) float16.
        masks: (N, 1, H, W) uint8, on the same device.
    """

    def __init__(self, images: Tensor, masks: Tensor) -> None:
        self._images, self._masks = images, masks

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every slice."""
        channels, height, width = self._images.shape[1:]
        return int(channels), int(height), int(width)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self._images)

    def fetch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Choose the rows where they are; see `Store`."""
        chosen = torch.from_numpy(rows).to(self._images.device, non_blocking=True)
        images = torch.index_select(self._images, 0, chosen)
        return images.to(device), torch.index_select(self._masks, 0, chosen).to(device)

    def readers(self, device: torch.device) -> int:
        """There is nothing to read."""
        return 0


def copy_to_device(store: Store, device: torch.device, batch_size: int = 256) -> DeviceSlices:
    """Put all slices of a store on a device."""
    images = torch.empty((len(store), *store.shape), dtype=torch.float16, device=device)
    masks = torch.empty((len(store), 1, *store.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(store), batch_size):
        rows = np.arange(start, min(start + batch_size, len(store)))
        images[rows[0] : rows[-1] + 1], masks[rows[0] : rows[-1] + 1] = store.fetch(rows, device)
    return DeviceSlices(images, masks)


def _room_for(
    count: int, shape: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return an empty batch in memory, pinned where a GPU is to fetch it."""
    pinned = device.type == "cuda"
    return (
        torch.empty((count, *shape), dtype=torch.float16, pin_memory=pinned),
        torch.empty((count, 1, *shape[1:]), dtype=torch.uint8, pin_memory=pinned),
    )
