"""A choice of slices of one axis.

A *slice set* is an ordered choice of the slices in a *store*, together with what training must
know of each: its case, the number of its lesion voxels, and whether it holds brain. Choosing
copies nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strokeseg.imaging.slices import hold_brain
from strokeseg.training.stores import MappedSlices, Store, copy_to_device

_BATCHES_AHEAD = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceSet:
    """Slices of one axis, all of one size; N of them.

    Attributes:
        store: Where the slices lie.
        cases: (N,) names of the slices' cases.
        lesion_voxels: (N,) int64, lesion voxels of each slice.
        holds_brain: (N,) bool, whether a slice holds anything but background.
        rows: (N,) int64, each slice's row in the store; None for all rows in order.
    """

    store: Store
    cases: NDArray[np.str_]
    lesion_voxels: NDArray[np.int64]
    holds_brain: NDArray[np.bool_]
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            ValueError: When they do not.
        """
        count = len(self.store) if self.rows is None else len(self.rows)
        if not count == len(self.cases) == len(self.lesion_voxels) == len(self.holds_brain):
            raise ValueError(
                f"{count} slices need as many cases, lesion_voxels and holds_brain, got "
                f"{len(self.cases)}, {len(self.lesion_voxels)} and {len(self.holds_brain)}"
            )

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.cases)

    @property
    def channels(self) -> int:
        """Number of sequences."""
        return self.store.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every slice in voxels."""
        return self.store.shape[1:]

    def select(self, cases: Collection[str]) -> SliceSet:
        """Return the slices of some cases, in the same order, in the same store."""
        return self.keep(np.isin(self.cases, sorted(set(cases))))

    def keep(self, chosen: NDArray[np.bool_]) -> SliceSet:
        """Return the slices for which `chosen`, (N,) bool, holds."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        return SliceSet(
            store=self.store,
            cases=self.cases[chosen],
            lesion_voxels=self.lesion_voxels[chosen],
            holds_brain=self.holds_brain[chosen],
            rows=rows[chosen],
        )

    def on(self, device: torch.device) -> SliceSet:
        """Return the same slices, the whole store of which is held on a device."""
        return SliceSet(
            store=copy_to_device(self.store, device),
            cases=self.cases,
            lesion_voxels=self.lesion_voxels,
            holds_brain=self.holds_brain,
            rows=self.rows,
        )

    def gather(
        self, indices: NDArray[np.int64], device: torch.device | str
    ) -> tuple[Tensor, Tensor]:
        """Return a batch of B slices on a device.

        They travel as they are stored and grow to float32 on the device.

        Args:
            indices: (B,) positions in this set, 0 to N - 1, repeats allowed.
            device: Where the tensors shall be.

        Returns:
            Images (B, C, H, W) and masks (B, 1, H, W), both float32.
        """
        return _grow(self.store.fetch(self._rows_of(indices), torch.device(device)))

    def batches(
        self, plan: Sequence[NDArray[np.int64]], device: torch.device | str
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield what `gather` returns for each entry of a plan, read ahead where that helps."""
        device = torch.device(device)
        if readers := self.store.readers(device):
            with closing(self._read_ahead(plan, device, readers)) as fetched:
                yield from map(_grow, fetched)
        else:
            yield from (self.gather(indices, device) for indices in plan)

    def _rows_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        positions = np.asarray(indices, dtype=np.int64)
        return positions if self.rows is None else self.rows[positions]

    def _read_ahead(
        self, plan: Iterable[NDArray[np.int64]], device: torch.device, readers: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        pool = ThreadPoolExecutor(readers, thread_name_prefix="slices")
        try:
            for indices in plan:
                waiting.append(pool.submit(self.store.fetch, self._rows_of(indices), device))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def slices_in_memory(
    images: Sequence[NDArray[np.float16]],
    masks: Sequence[NDArray[np.uint8]],
    cases: NDArray[np.str_],
) -> SliceSet:
    """Make a set of all slices of some blocks; see `MappedSlices` for these.

    Raises:
        ValueError: When blocks and cases do not fit each other.
    """
    return SliceSet(
        store=MappedSlices(images, masks),
        cases=cases,
        lesion_voxels=np.concatenate([block.sum(axis=(1, 2), dtype=np.int64) for block in masks]),
        holds_brain=np.concatenate([hold_brain(block) for block in images]),
    )


def _grow(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    images, masks = batch
    return images.to(torch.float32), masks.to(torch.float32)
