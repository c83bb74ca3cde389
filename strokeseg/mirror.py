"""A working copy of what lies at a URI, for code that needs a file system.

A *storage* is what a URI such as `s3://bucket/prefix` names. A *mirror* is the pair of a storage
and a local folder, at the same absolute path on every node, in which everybody works as if there
were no storage: who needs what another node may have made *fetches* it first, and who made
something *publishes* it. A *marker* is the file that says that its folder is complete: it leaves
the storage before anything beside it changes, and comes back after all of it.

A file is told by size and time of change. Publishing gives the local file the storage's time;
where the two differ, the newer one holds.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strokeseg.errors import UserError
from strokeseg.files import replacing_file, unwritable

if TYPE_CHECKING:
    from strokeseg.storage import Found, Storage

_MARKERS = {"preparation.json", "ensemble.json", "summary.json"}
_PROBE = ".writable"


@dataclass(frozen=True)
class Mirror:
    """A storage and its working copy on this node.

    Attributes:
        uri: The storage.
        folder: The working copy.
    """

    uri: str
    folder: Path
    # Files that this process knows to be on the storage, with their local size and time.
    _known: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)
    _turn: Any = field(default_factory=threading.RLock, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[Mirror], tuple[str, Path]]:
        """Leave behind what only this process knows: on another node other files are there."""
        return Mirror, (self.uri, self.folder)

    def fetch(self, path: Path) -> None:
        """Copy a file, or all files of a folder, from the storage where it has newer ones.

        Raises:
            UserError: When the storage does not answer, or this disk cannot take them.
        """
        with self._turn, _opened(self.uri) as storage:
            make_private(self.folder)
            for key, found in storage.listed(self._key(path)).items():
                if not _is_passing(key.removeprefix(self._key(path))):
                    self._fetch_one(storage, key, found)

    def publish(self, path: Path) -> None:
        """Copy what changed of a file, or of a folder, to the storage; remove what has gone.

        Raises:
            UserError: When the storage does not answer.
        """
        with self._turn:
            key = self._key(path)
            here = {
                name: status
                for name, status in self._local(path)
                if not _is_passing(name.removeprefix(key))
            }
            changed = [name for name, status in here.items() if self._known.get(name) != status]
            gone = [name for name in self._known if _lies_in(name, key) and name not in here]
            if not changed and not gone:
                return
            markers = [name for name in changed if Path(name).name in _MARKERS]
            others = [name for name in changed if name not in markers]
            with _opened(self.uri) as storage:
                for name in markers:
                    storage.delete(name)
                for name in (*others, *gone, *markers):
                    if name in here:
                        self._publish_one(storage, name, here[name])
                    else:
                        storage.delete(name)
                        self._known.pop(name, None)

    def discard(self, folder: Path, pattern: str = "*", *, keep: bool = False) -> None:
        """Remove files of a folder, by name, from the storage and, unless kept, from here.

        Raises:
            UserError: When the storage does not answer.
        """
        with self._turn, _opened(self.uri) as storage:
            for key in storage.listed(self._key(folder)):
                if Path(key).match(pattern):
                    storage.delete(key)
                    if not keep:
                        (self.folder / key).unlink(missing_ok=True)
                    self._known.pop(key, None)
            if pattern == "*":
                storage.delete_folder(self._key(folder))

    def forget(self, folder: Path) -> None:
        """Remove files of a folder from here that this process has published; those there stay."""
        with self._turn:
            for key, status in list(self._local(folder)):
                if self._known.get(key) == status:
                    (self.folder / key).unlink(missing_ok=True)
                    del self._known[key]

    def write(self, path: Path, text: str) -> None:
        """Write a small text to the storage only.

        Raises:
            UserError: When the storage does not answer.
        """
        with _opened(self.uri) as storage:
            storage.write(self._key(path), text.encode())

    def read(self, path: Path) -> tuple[str, float] | None:
        """Return a text on the storage, and its age in seconds by the storage's own clock.

        Raises:
            UserError: When the storage does not answer, or cannot be written to.
        """
        with _opened(self.uri) as storage:
            found = storage.find(self._key(path))
            if found is None:
                return None
            storage.write(_PROBE, b"")
            probe = storage.find(_PROBE)
            now_ns = found.changed_ns if probe is None else probe.changed_ns
            with storage.open(self._key(path)) as source:
                return source.read().decode(), (now_ns - found.changed_ns) / 1e9

    def check(self, *, writes: bool) -> None:
        """Make sure that the storage answers, and can be written to if that is wanted.

        Raises:
            UserError: When it does not, or cannot.
        """
        with _opened(self.uri) as storage:
            storage.check(writes=writes)

    def _key(self, path: Path) -> str:
        key = path.relative_to(self.folder).as_posix()
        return "" if key == "." else key

    def _local(self, path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            try:
                if file.is_file() and not file.is_symlink():
                    yield self._key(file), _status(file)
            except FileNotFoundError:
                # Replaced or removed in the meantime: the next time tells.
                continue

    def _fetch_one(self, storage: Storage, key: str, found: Found) -> None:
        path = self.folder / key
        if path.is_file():
            size, changed_ns = _status(path)
            if changed_ns > found.changed_ns:
                return
            if (size, changed_ns) == (found.size, found.changed_ns):
                self._known[key] = (size, changed_ns)
                return
        elif key in self._known:
            # Removed here, and about to be removed there.
            return
        with (
            replacing_file(path) as partial,
            storage.open(key) as source,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        os.utime(path, ns=(found.changed_ns, found.changed_ns))
        self._known[key] = _status(path)

    def _publish_one(self, storage: Storage, key: str, status: tuple[int, int]) -> None:
        path = self.folder / key
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        storage.write(key, content)
        there = storage.find(key)
        # What was written to in the meantime keeps its own time, and so is published again.
        if there and path.is_file() and _status(path) == status and len(content) == status[0]:
            os.utime(path, ns=(there.changed_ns, there.changed_ns))
            status = (status[0], there.changed_ns)
        self._known[key] = status


def is_uri(place: str) -> bool:
    """Whether a place is a URI rather than a path."""
    return "://" in place


def mirror_of(uri: str) -> Mirror:
    """Return the mirror of a URI, in this user's own part of the temporary folder."""
    name = hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]
    place = os.environ.get("STROKESEG_WORK") or tempfile.gettempdir()
    return Mirror(uri.rstrip("/"), Path(place).absolute() / f"strokeseg-{os.getuid()}" / name)


def fetch(mirrors: Sequence[Mirror], paths: Iterable[Path]) -> None:
    """Fetch paths that lie in mirrors; others are where they are."""
    for path in paths:
        for mirror in mirrors:
            if path.is_relative_to(mirror.folder):
                mirror.fetch(path)


def publish(mirrors: Sequence[Mirror], paths: Iterable[Path]) -> None:
    """Publish paths that lie in mirrors; others are where they are."""
    for path in paths:
        for mirror in mirrors:
            if path.is_relative_to(mirror.folder):
                mirror.publish(path)


def discard(
    mirrors: Sequence[Mirror], folder: Path, pattern: str = "*", *, keep: bool = False
) -> None:
    """Remove files of a folder, by name, from the storage; those here too, unless kept."""
    for mirror in mirrors:
        if folder.is_relative_to(mirror.folder):
            mirror.discard(folder, pattern, keep=keep)


def forget(mirrors: Sequence[Mirror], folder: Path) -> None:
    """Remove files of a folder from here that this process has published; those there stay."""
    for mirror in mirrors:
        if folder.is_relative_to(mirror.folder):
            mirror.forget(folder)


def fetched(place: Path | str | None, option: str) -> tuple[Path | None, Mirror | None]:
    """Return a path to read an option's place at, and its mirror if the place is a URI.

    Raises:
        UserError: When the storage does not answer, or holds nothing there.
    """
    if place is None or not is_uri(str(place)):
        return (None if place is None else Path(place)), None
    uri = str(place)
    # A file is read with all that lies beside it, since a manifest names such files.
    parent, _, name = uri.rstrip("/").rpartition("/")
    is_file = Path(name).suffix in {".csv", ".zip"}
    mirror = mirror_of(parent if is_file else uri)
    mirror.check(writes=False)
    path = mirror.folder / name if is_file else mirror.folder
    mirror.fetch(path if Path(name).suffix == ".zip" else mirror.folder)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{option} {uri}: there is nothing; correct it")
    return path, mirror


def make_private(folder: Path) -> None:
    """Make a mirror's folder and its parent, which only this user may enter.

    Raises:
        UserError: When it cannot be made, or is another user's.
    """
    try:
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place.is_symlink() or place.stat().st_uid != os.getuid():
                raise UserError(
                    f"{place}: must be {getpass.getuser()}'s own; remove it, or set "
                    "STROKESEG_WORK to another folder"
                )
            place.chmod(0o700)
    except OSError as error:
        raise unwritable(folder, error) from None


@contextmanager
def _opened(uri: str) -> Iterator[Storage]:
    # Only URIs need it, and `predict` runs where it is not installed.
    try:
        from strokeseg.storage import open_storage  # noqa: PLC0415
    except ModuleNotFoundError:
        raise UserError(f"{uri}: URIs need pyarrow; install it, or give a folder") from None
    with open_storage(uri) as storage:
        yield storage


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _lies_in(name: str, key: str) -> bool:
    return not key or name == key or name.startswith(f"{key}/")


def _is_passing(key: str) -> bool:
    """Whether a file is nobody else's business: half written, a lock, Tune's scratch."""
    *folders, name = key.split("/")
    return (
        "tune" in folders
        or name == _PROBE
        or name.endswith((".lock", ".lease"))
        or any(part.startswith(".partial-") for part in (*folders, name))
    )
