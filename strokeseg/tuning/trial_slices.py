"""The end of a feed in a trial's process: where its slices are opened."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, ObjectLostError

from strokeseg.imaging.slice_table import table_to_arrays
from strokeseg.training.slice_set import SliceSet
from strokeseg.training.stores import MappedSlices, Store
from strokeseg.tuning.feed import Feed
from strokeseg.tuning.unpacking import unpacked_here

_log = logging.getLogger(__name__)

_BLOCK_SECONDS = 300


@lru_cache(maxsize=1)
def slices_of(feed: Feed) -> SliceSet:
    """Open a feed in a trial's process, which keeps it for the trials that come after.

    Returns:
        All slices of the axis in order of case and slice, whatever the way: equal seeds must
        draw equal slices.

    Raises:
        UserError: When the slices must be unpacked, and a file is damaged.
        StorageError: When they must be unpacked, and this node's disk has no room.
    """
    facts: pa.Table = ray.get(feed.facts)
    store, rows = _store_of(feed)
    slices = SliceSet(
        store=store,
        rows=rows,
        cases=facts["case"].to_numpy(),
        lesion_voxels=facts["lesion_voxels"].to_numpy().astype(np.int64),
        holds_brain=facts["brain_voxels"].to_numpy() > 0,
    )
    if not feed.on_gpu:
        return slices
    try:
        return slices.on(torch.device("cuda"))
    except torch.OutOfMemoryError:
        # Another GPU than the one that was measured, or others use it, too.
        _log.warning("this GPU has no room for the slices; they stay where they are")
    torch.cuda.empty_cache()
    return slices


def _store_of(feed: Feed) -> tuple[Store, NDArray[np.int64] | None]:
    """Return where the slices lie, and their rows there in order of case and slice."""
    if feed.blocks:
        try:
            tables = ray.get(list(feed.blocks), timeout=_BLOCK_SECONDS)
        except (GetTimeoutError, ObjectLostError):
            # Blocks that went with their node are read again only when a CPU is free for it.
            _log.warning("the slices in shared memory are lost; unpacking them on this node's disk")
        else:
            return mapped(tables)
    return unpacked_here(feed.facts.hex(), feed.files, feed.counts, feed.shape), None


def mapped(tables: Sequence[pa.Table]) -> tuple[MappedSlices, NDArray[np.int64]]:
    """View Arrow tables as slices, without a copy.

    Returns:
        The slices, and their rows in order of case and slice: Ray Data puts several files into
        a block, and hands blocks over, as it likes.
    """
    batches = [batch for table in tables for batch in table.to_batches() if len(batch)]
    arrays = [table_to_arrays(batch) for batch in batches]
    cases = np.concatenate([batch["case"].to_numpy(zero_copy_only=False) for batch in batches])
    indices = np.concatenate([batch["slice_index"].to_numpy() for batch in batches])
    store = MappedSlices([images for images, _ in arrays], [masks for _, masks in arrays])
    return store, np.lexsort((indices, cases.astype(str)))
