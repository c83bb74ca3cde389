"""A choice of slices, and the ways in which they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from strokeseg.imaging.slice_table import slices_to_table
from strokeseg.imaging.slices import hold_brain
from strokeseg.imaging.unpacked import unpack
from strokeseg.training.slice_set import SliceSet, slices_in_memory
from strokeseg.training.stores import MappedSlices, UnpackedSlices

CPU = torch.device("cpu")


def _numbered() -> SliceSet:
    """Blocks of 2 and 3 slices; every voxel of slice i is i; slice 0 is empty."""
    images = np.broadcast_to(
        np.arange(5, dtype=np.float16)[:, None, None, None], (5, 2, 4, 6)
    ).copy()
    masks = (images[:, 0] > 2).astype(np.uint8)
    images.setflags(write=False)
    return slices_in_memory(
        (images[:2], images[2:]), (masks[:2], masks[2:]), np.array(["a", "a", "b", "c", "c"])
    )


def write_files(folder: Path, slices: SliceSet, group: int) -> list[Path]:
    """Write each case's slices as `prepare` does, so many slices a row group."""
    files = []
    for case in np.unique(slices.cases):
        rows = np.flatnonzero(slices.cases == case)
        images, masks = slices.store.fetch(rows, CPU)
        table = slices_to_table(str(case), str(case), images.numpy(), masks[:, 0].numpy(), {})
        pq.write_table(table, folder / f"{case}.parquet", row_group_size=group)
        files.append(folder / f"{case}.parquet")
    return files


def test_gather_takes_slices_across_blocks_in_the_order_asked() -> None:
    images, masks = _numbered().gather(np.array([4, 0, 2, 4]), "cpu")
    assert images.shape == (4, 2, 4, 6)
    assert masks.shape == (4, 1, 4, 6)
    assert images.dtype == masks.dtype == torch.float32
    assert images[:, 0, 0, 0].tolist() == [4, 0, 2, 4]
    assert masks[:, 0, 0, 0].tolist() == [1, 0, 0, 1]


def test_select_shares_the_store_and_counts_from_its_own_start() -> None:
    whole = _numbered()
    chosen = whole.select(["c", "b"])
    assert len(chosen) == 3
    assert chosen.cases.tolist() == ["b", "c", "c"]
    # Slices 3 and 4 are lesion all over: 4 x 6 voxels.
    assert chosen.lesion_voxels.tolist() == [0, 24, 24]
    assert chosen.store is whole.store
    assert chosen.gather(np.array([0, 2]), "cpu")[0][:, 0, 0, 0].tolist() == [2, 4]
    assert chosen.select(["c"]).gather(np.array([0]), "cpu")[0][0, 0, 0, 0] == 3


def test_slices_of_zeros_hold_no_brain() -> None:
    assert _numbered().holds_brain.tolist() == [False, True, True, True, True]
    assert _numbered().select(["a"]).holds_brain.tolist() == [False, True]
    below_zero = np.full((1, 1, 2, 2), -1, dtype=np.float16)
    assert hold_brain(below_zero).tolist() == [True]


@pytest.mark.parametrize(
    "device",
    [
        CPU,
        pytest.param(
            torch.device("cuda"),
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("group", [1, 5, 12])
def test_all_stores_give_the_same_batches(
    toy_slices: Callable[..., SliceSet], tmp_path: Path, group: int, device: torch.device
) -> None:
    mapped = toy_slices(cases=3, slices=12)
    files = write_files(tmp_path, mapped, group)
    with unpack(files, [12, 12, 12], mapped.store.shape, tmp_path) as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        unpacked = replace(mapped, store=UnpackedSlices(path, 36, mapped.store.shape))
    generator = np.random.default_rng(0)
    plan = [generator.integers(24, size=5) for _ in range(30)]
    expected = list(mapped.select(["case2", "case0"]).batches(plan, CPU))
    for slices in (mapped, unpacked, mapped.on(device), unpacked.on(device)):
        given = slices.select(["case2", "case0"]).batches(plan, device)
        for (images, masks), (first, second) in zip(given, expected, strict=True):
            assert images.device.type == masks.device.type == device.type
            assert torch.equal(images.cpu(), first)
            assert torch.equal(masks.cpu(), second)


def test_reading_ahead_stops_when_nobody_asks_any_more(
    toy_slices: Callable[..., SliceSet], tmp_path: Path
) -> None:
    slices = toy_slices(cases=1)
    files = write_files(tmp_path, slices, 1)
    with unpack(files, [12], slices.store.shape, tmp_path) as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        store = UnpackedSlices(path, 12, slices.store.shape)
    read: list[int] = []
    fetch = store.fetch
    store.fetch = lambda rows, device: read.append(0) or fetch(rows, device)  # type: ignore[method-assign]
    batches = replace(slices, store=store).batches([np.array([0])] * 1000, CPU)
    next(batches)
    batches.close()
    # One is handed out, eight wait, and a thread may have begun another.
    assert 1 <= len(read) <= 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": (np.zeros((2, 4, 6), np.uint8),)}, "block by block"),
        ({"images": (), "masks": ()}, "one block"),
        (
            {"images": (np.zeros((2, 1, 4, 6), np.float16), np.zeros((2, 1, 4, 4), np.float16))},
            "share channels and size",
        ),
    ],
)
def test_blocks_that_do_not_fit_are_refused(change: dict[str, object], words: str) -> None:
    store = _numbered().store
    assert isinstance(store, MappedSlices)
    with pytest.raises(ValueError, match=words):
        MappedSlices(**({"images": store.images, "masks": store.masks} | change))


def test_as_many_cases_as_slices_are_needed() -> None:
    whole = _numbered()
    with pytest.raises(ValueError, match="5 slices"):
        SliceSet(
            store=whole.store,
            cases=np.array(["a"]),
            lesion_voxels=whole.lesion_voxels,
            holds_brain=whole.holds_brain,
        )
