"""One unpacked copy of an axis's slices a node, for all of its trials.

The first trial of a node that needs it has an actor make it, on the disk of Ray's temporary
folder. The actor asks for no CPU, since the trials may hold all of them, and holds the file, which
has no name; the trials open it by the actor's descriptor. When they are gone, so is the file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from strokeseg.imaging.unpacked import unpack

_DISK_SHARE = 0.5
_MOUNTS = Path("/proc/self/mounts")
# They would take the memory that slices did not fit into.
_IN_MEMORY = ("tmpfs", "ramfs")


def disk_room() -> float:
    """Return the bytes that this node's disk has for unpacked slices; none but on Linux."""
    if not _MOUNTS.exists():
        return 0.0
    folder = _folder()
    if file_system(folder) in _IN_MEMORY:
        return 0.0
    return _DISK_SHARE * shutil.disk_usage(folder).free


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
) -> Path | None:
    """Return where this node's unpacked copy can be opened, or nothing if the disk has no room.

    Args:
        name: Of these slices, within the search.
        files: Their Parquet files, which this node sees.
        counts: Slices of each.
        shape: Channels, height and width of every slice.

    Raises:
        UserError: When a file is damaged.
    """
    try:
        path: str | None = ray.get(_unpacker(name).unpacked.remote(files, counts, shape))
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError:
        _unpacker.cache_clear()
        return None
    return None if path is None else Path(path)


@lru_cache(maxsize=1)
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
    ) -> str | None:
        """Unpack, once, and return what opens it; nothing if the disk has no room."""
        if self._file is None:
            try:
                self._file = unpack([Path(file) for file in files], counts, shape, _folder())
            except OSError:
                return None
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
