"""An axis's slices on their way to the trials.

Ray Data reads an axis's Parquet once a study into the nodes' object stores. The *blocks* there
are mapped by all trials of a node, without a copy. Where they do not fit the object stores, each
node unpacks them on its disk. Where they fit a trial's share of its GPU, the trial holds them
there. Which of these it is is decided from sizes, before the first trial, and all give the same
batches.

Nothing is read by Ray while trials run: a read that waits for a CPU while trials hold all of
them would wait for ever, in silence.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from strokeseg.compute.allotment import cluster_nodes
from strokeseg.errors import UserError, listed
from strokeseg.imaging.slice_file import SliceFile
from strokeseg.imaging.slice_table import in_one_piece
from strokeseg.imaging.unpacked import unpacked_bytes
from strokeseg.tuning.unpacking import disk_here

_log = logging.getLogger(__name__)

T = TypeVar("T")

_SHARED_MEMORY = Path("/dev/shm")
_STORE_SHARE = 0.6
# The network, its gradients and its batches need the rest.
_GPU_SHARE = 0.3
_COLUMNS = ["case", "slice_index", "lesion_voxels", "brain_voxels", "image", "mask"]


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What a trial needs to get at an axis's slices; small, and sent to every trial.

    Attributes:
        files: The axis's Parquet files, in order of their cases.
        counts: Slices of each file.
        shape: Channels, height and width of every slice.
        facts: Of an Arrow table with `case`, `lesion_voxels` and `brain_voxels` of every slice.
        blocks: Of Arrow tables with all slices; None where nodes unpack the files.
        on_gpu: Whether trials hold all slices on their GPU.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    shape: tuple[int, int, int]
    facts: ray.ObjectRef
    blocks: tuple[ray.ObjectRef, ...]
    on_gpu: bool

    @property
    def bytes(self) -> int:
        """What all slices take where they are kept, in memory or on a disk."""
        return sum(self.counts) * unpacked_bytes(self.shape)


def open_feeds(
    slices_folder: Path,
    axes: Sequence[str],
    cases: Collection[str],
    *,
    gpus: float,
) -> dict[str, Feed]:
    """Open the feed of each axis, one after the other: they share memory and disks.

    Args and errors are those of `open_feed`.
    """
    feeds: dict[str, Feed] = {}
    for axis in axes:
        feeds[axis] = open_feed(
            *(slices_folder, axis, cases), gpus=gpus, beside=tuple(feeds.values())
        )
    return feeds


def open_feed(
    slices_folder: Path,
    axis: str,
    cases: Collection[str],
    *,
    gpus: float,
    beside: Sequence[Feed] = (),
) -> Feed:
    """Choose how slices get to the trials, and read them where they are to be kept in memory.

    Args:
        slices_folder: The experiment's Parquet files.
        axis: `axial`, `coronal` or `sagittal`.
        cases: All cases that must be there.
        gpus: GPUs of a trial: one, a fraction of one, or 0.
        beside: Feeds that are open already.

    Raises:
        UserError: When a case is missing, a file is damaged, torch cannot use the GPUs, or neither
            memory nor disks have room for the slices.
    """
    folder = slices_folder / f"axis={axis}"
    facts = []
    shapes = set()
    for path in sorted(folder.glob("fold=*/*.parquet"), key=lambda path: path.stem):
        file = SliceFile(path)
        shapes.add(file.shape)
        facts.append((str(path), file.columns(["case", "lesion_voxels", "brain_voxels"])))
    facts.sort(key=lambda fact: str(fact[1]["case"][0]))
    if missing := sorted(set(cases) - {fact["case"][0].as_py() for _, fact in facts}):
        raise UserError(
            f"{folder}: lacks the slices of case {missing[0]} ({len(missing)} cases are missing); "
            "remove the folder prepared/ and run prepare again, searches go on with what they have"
        )
    if len(shapes) > 1:
        raise UserError(f"{folder}: slices must be of one size, got {sorted(shapes)}")
    (shape,) = shapes
    files, counts = [path for path, _ in facts], [len(fact) for _, fact in facts]
    needed = sum(counts) * unpacked_bytes(shape)
    store = min((node.object_store_bytes for node in cluster_nodes()), default=0)
    mapped_before = sum(feed.bytes for feed in beside if feed.blocks)
    room = min([_STORE_SHARE * store - mapped_before, *_shared_memory_left(store)])
    on_gpu = gpus > 0 and needed <= _GPU_SHARE * min(1.0, gpus) * gpu_bytes(min(1.0, gpus))
    fits = needed <= room
    if not fits:
        unpacked_before = sum(feed.bytes for feed in beside if not feed.blocks)
        _check_disks(folder, unpacked_before + needed, room)
    if on_gpu:
        way = "held on each trial's GPU"
    elif fits:
        way = "mapped from shared memory"
    else:
        way = "unpacked on each node's disk"
    _log.info(
        "feed: %d %s slices of %d x %d x %d, %.2f GB; the smallest object store has %.2f GB, with "
        "room for %.2f GB: %s",
        *(sum(counts), axis, *shape, needed / 1e9, store / 1e9, room / 1e9),
        way,
    )
    return Feed(
        files=tuple(files),
        counts=tuple(counts),
        shape=shape,
        facts=ray.put(pa.concat_tables([fact for _, fact in facts]).combine_chunks()),
        blocks=_load_blocks(folder, files) if fits else (),
        on_gpu=on_gpu,
    )


def _shared_memory_left(store_bytes: float) -> list[float]:
    """Return the bytes that each node's shared memory has left, where its object store lies there.

    Others fill it, too, and Ray dies when it finds no more of it than it counted on at its start.
    """
    # Ray goes elsewhere when shared memory is smaller than the store.
    return [float(free) for total, free in _on_every_node(_shared_memory) if total >= store_bytes]


def _check_disks(folder: Path, needed_bytes: float, memory_bytes: float) -> None:
    """Check that every node can unpack slices that object stores have no room for."""
    faults = [disk.fault(needed_bytes) for disk in _on_every_node(disk_here)]
    if lacking := [fault for fault in faults if fault is not None]:
        raise UserError(
            f"{folder}: {needed_bytes / 1e9:.2f} GB of slices fit neither shared memory, with room "
            f"for {memory_bytes / 1e9:.2f} GB, nor the disk: {listed(lacking)}"
        )


def _on_every_node(function: Callable[[], T]) -> list[T]:
    """Return what a function finds on each node, this one first."""
    here = ray.get_runtime_context().get_node_id()
    others = [
        ray.remote(function).options(num_cpus=0, scheduling_strategy=strategy).remote()
        for name, strategy in _every_node()
        if name != here
    ]
    return [function(), *ray.get(others)]


def _shared_memory() -> tuple[int, int]:
    """All bytes of this node's shared memory, and those that are free; 0 except on Linux."""
    if not _SHARED_MEMORY.is_dir():
        return 0, 0
    usage = shutil.disk_usage(_SHARED_MEMORY)
    return usage.total, usage.free


def first_shape(slices_folder: Path, axis: str) -> tuple[int, int, int]:
    """Return channels, height and width of the first of an axis's slices.

    Raises:
        UserError: When there are none, or their file is damaged.
    """
    folder = slices_folder / f"axis={axis}"
    files = sorted(folder.glob("fold=*/*.parquet"))
    if not files:
        raise UserError(f"{folder}: holds no slices; remove prepared/ and run prepare again")
    return SliceFile(files[0]).shape


def gpu_bytes(gpus: float) -> int:
    """Return the memory of the GPU that a process with this fraction of one gets.

    Raises:
        UserError: When torch cannot use it.
    """
    # Said here, and not as an option of the task, it ends the task's process with it.
    found: int = ray.get(ray.remote(num_cpus=0, num_gpus=gpus)(_gpu_bytes).remote())
    if not found:
        raise UserError(
            "Ray counts GPUs, but torch finds none there; install a torch that fits their driver, "
            "or train on CPUs with --gpus-per-trial 0"
        )
    return found


def _gpu_bytes() -> int:
    import torch  # noqa: PLC0415 - for the task; the driver of a search does without it

    available = torch.cuda.is_available()
    return int(torch.cuda.get_device_properties(0).total_memory) if available else 0


def _load_blocks(folder: Path, files: list[str]) -> tuple[ray.ObjectRef, ...]:
    """Read a folder's files into the object stores, all of them before this returns."""
    # Given a list of files, Ray Data looks for what it needs to read them over HTTP.
    dataset = ray.data.read_parquet(str(folder), partitioning=None).select_columns(_COLUMNS)
    # One piece a block: a trial would have to map every slice by itself.
    whole = dataset.map_batches(in_one_piece, batch_format="pyarrow", batch_size=None)
    try:
        return tuple(whole.materialize().to_arrow_refs())
    except RayError:
        # What a task raises reaches the driver wrapped beyond recognition.
        for path in files:
            SliceFile(Path(path)).columns(_COLUMNS)
        raise


def _every_node() -> list[tuple[str, NodeAffinitySchedulingStrategy]]:
    """Return the name of each node, and what sends a task there."""
    return [
        # The task of a node that has died, which is known only after a while, goes elsewhere.
        (node["NodeID"], NodeAffinitySchedulingStrategy(node["NodeID"], soft=True))
        for node in ray.nodes()
        if node["Alive"]
    ]
