"""One unpacked copy of an axis's slices a node, for all of its trials.

The first trial of a node that needs it has an actor make it, on the disk of Ray's temporary
folder. The actor asks for no CPU, since the trials may hold all of them, and holds the file, which
has no name; the trials open it by the actor's descriptor. When they are gone, so is the file. Where
the actor is lost, the next trial has another one unpack the slices again.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from strokeseg.errors import StorageError
from strokeseg.imaging.slices import AXES
from strokeseg.imaging.unpacked import unpack, unpacked_bytes

if TYPE_CHECKING:
    from strokeseg.training.stores import UnpackedSlices

_log = logging.getLogger(__name__)

_DISK_SHARE = 0.5
_MOUNTS = Path("/proc/self/mounts")
# They would take the memory that slices did not fit into.
_IN_MEMORY = ("tmpfs", "ramfs")
_TRIES = 3
_SECONDS_BETWEEN_TRIES = 1.0


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Where a node unpacks slices.

    Attributes:
        folder: Ray's temporary folder, with the node's name before it.
        free_bytes: What it has free.
        on_disk: Whether slices can be unpacked there: on Linux, and not in memory.
    """

    folder: str
    free_bytes: int
    on_disk: bool

    def fault(self, needed_bytes: float) -> str | None:
        """Return why so many bytes cannot be unpacked there, and the remedy; else None."""
        room = needed_bytes / _DISK_SHARE
        if not self.on_disk:
            return (
                f"{self.folder} is on no disk of a Linux machine; let RAY_TMPDIR name a folder on "
                f"one with {room / 1e9:.2f} GB free"
            )
        if room <= self.free_bytes:
            return None
        return (
            f"{self.folder} must have {room / 1e9:.2f} GB free, twice what slices take, and has "
            f"{self.free_bytes / 1e9:.2f}; free {(room - self.free_bytes) / 1e9:.2f} GB more there"
        )


def disk_here() -> Disk:
    """Return this node's."""
    folder = _folder()
    return Disk(
        folder=f"node {socket.gethostname()}: {folder}",
        free_bytes=shutil.disk_usage(folder).free,
        on_disk=_MOUNTS.exists() and file_system(folder) not in _IN_MEMORY,
    )


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder lies on."""
    found = Path("/"), ""
    for line in _MOUNTS.read_text().splitlines():
        _, place, kind = line.split()[:3]
        mounted = Path(place.encode().decode("unicode_escape"))
        # Of two at one place the later one hides the other.
        if folder.is_relative_to(mounted) and mounted.is_relative_to(found[0]):
            found = mounted, kind
    return found[1]


def _folder() -> Path:
    return Path(ray.get_runtime_context().get_temp_dir()).resolve()


def unpacked_here(
    name: str, files: Sequence[str], counts: Sequence[int], shape: tuple[int, int, int]
) -> UnpackedSlices:
    """Open this node's unpacked copy, which is made first where there is none.

    Args:
        name: Of these slices, within the search.
        files: Their Parquet files, which this node sees.
        counts: Slices of each.
        shape: Channels, height and width of every slice.

    Raises:
        UserError: When a file is damaged.
        StorageError: When the disk has no room, or the actor is lost again and again.
    """
    # A driver asks for disks only, and needs no PyTorch for that.
    from strokeseg.training.stores import UnpackedSlices  # noqa: PLC0415

    for _ in range(_TRIES):
        try:
            path: str = ray.get(_unpacker(name).unpacked.remote(files, counts, shape))
            return UnpackedSlices(Path(path), sum(counts), shape)
        except RayTaskError as error:
            raise error.cause from None
        except (RayActorError, FileNotFoundError) as error:
            _log.warning("this node's unpacked slices are lost (%s); unpacking again", error)
            _unpacker.cache_clear()
            # Until Ray knows that the actor is gone, its name is not free.
            time.sleep(_SECONDS_BETWEEN_TRIES)
    raise StorageError(
        f"node {socket.gethostname()}: the process that unpacks slices was lost {_TRIES} times; "
        "free memory there"
    )


@lru_cache(maxsize=len(AXES))
def _unpacker(name: str) -> Any:
    """Return this node's actor, and keep it: it ends when nobody knows it any more."""
    node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(_Unpacker)
        .options(
            name=f"{name}-{node}",
            get_if_exists=True,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote()
    )


class _Unpacker:
    """Holds an unpacked file."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def unpacked(
        self, files: Sequence[str], counts: Sequence[int], shape: tuple[int, int, int]
    ) -> str:
        """Unpack, once, and return what opens it."""
        if self._file is None:
            needed = sum(counts) * unpacked_bytes(shape)
            disk = disk_here()
            if not disk.on_disk:
                raise StorageError(disk.fault(needed))
            try:
                self._file = unpack([Path(file) for file in files], counts, shape, _folder())
            except OSError as error:
                raise StorageError(
                    f"{disk.folder} cannot hold {needed / 1e9:.2f} GB of unpacked slices "
                    f"({error.strerror}); free that much there"
                ) from None
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
