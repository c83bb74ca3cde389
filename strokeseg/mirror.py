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
from typing import Any

import pyarrow as pa
from pyarrow import fs

from strokeseg.errors import UserError
from strokeseg.files import replacing_file, unwritable

_MARKERS = {"preparation.json", "ensemble.json", "summary.json"}
_OBJECT_STORES = {"s3", "gcs", "abfs"}
_CONNECT_SECONDS, _REQUEST_SECONDS, _ATTEMPTS = 3, 30, 3
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
        with self._turn, _explained(self.uri):
            storage, root = _connect(self.uri)
            make_private(self.folder)
            for key, found in _listed(storage, root, self._key(path)).items():
                if not _is_passing(key.removeprefix(self._key(path))):
                    self._fetch_one(storage, root, key, found)

    def publish(self, path: Path) -> None:
        """Copy what changed of a file, or of a folder, to the storage; remove what has gone.

        Raises:
            UserError: When the storage does not answer.
        """
        with self._turn, _explained(self.uri):
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
            storage, root = _connect(self.uri)
            markers = [name for name in changed if Path(name).name in _MARKERS]
            for name in markers:
                _delete(storage, f"{root}/{name}")
            for name in (*(name for name in changed if name not in markers), *gone, *markers):
                if name in here:
                    self._publish_one(storage, root, name, here[name])
                else:
                    _delete(storage, f"{root}/{name}")
                    self._known.pop(name, None)

    def discard(self, folder: Path, pattern: str = "*", *, keep: bool = False) -> None:
        """Remove files of a folder, by name, from the storage and, unless kept, from here.

        Raises:
            UserError: When the storage does not answer.
        """
        with self._turn, _explained(self.uri):
            storage, root = _connect(self.uri)
            for key in _listed(storage, root, self._key(folder)):
                if Path(key).match(pattern):
                    _delete(storage, f"{root}/{key}")
                    if not keep:
                        (self.folder / key).unlink(missing_ok=True)
                    self._known.pop(key, None)
            place = f"{root}/{self._key(folder)}"
            if pattern == "*" and storage.get_file_info(place).type is fs.FileType.Directory:
                storage.delete_dir(place)

    def write(self, path: Path, text: str) -> None:
        """Write a small text to the storage only.

        Raises:
            UserError: When the storage does not answer.
        """
        with _explained(self.uri):
            storage, root = _connect(self.uri)
            _write(storage, f"{root}/{self._key(path)}", text.encode())

    def read(self, path: Path) -> tuple[str, float] | None:
        """Return a text on the storage, and its age in seconds by the storage's own clock.

        Raises:
            UserError: When the storage does not answer, or cannot be written to.
        """
        with _explained(self.uri):
            storage, root = _connect(self.uri)
            place, probe = f"{root}/{self._key(path)}", f"{root}/{_PROBE}"
            found = storage.get_file_info(place)
            if found.type is not fs.FileType.File:
                return None
            _write(storage, probe, b"")
            age_seconds = (storage.get_file_info(probe).mtime_ns - found.mtime_ns) / 1e9
            with storage.open_input_stream(place) as source:
                return source.read().decode(), age_seconds

    def check(self, *, writes: bool) -> None:
        """Make sure that the storage answers, and can be written to if that is wanted.

        Raises:
            UserError: When it does not, or cannot.
        """
        with _explained(self.uri):
            storage, root = _connect(self.uri)
            place = root.partition("/")[0] if storage.type_name in _OBJECT_STORES else root
            found = storage.get_file_info(place).type is not fs.FileType.NotFound
            if not found and (storage.type_name in _OBJECT_STORES or not writes):
                raise FileNotFoundError(f"there is no {place}")
            if writes:
                _write(storage, f"{root}/{_PROBE}", b"")
                _delete(storage, f"{root}/{_PROBE}")

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

    def _fetch_one(self, storage: fs.FileSystem, root: str, key: str, found: fs.FileInfo) -> None:
        path = self.folder / key
        if path.is_file():
            size, changed_ns = _status(path)
            if changed_ns > found.mtime_ns:
                return
            if (size, changed_ns) == (found.size, found.mtime_ns):
                self._known[key] = (size, changed_ns)
                return
        elif key in self._known:
            # Removed here, and about to be removed there.
            return
        with (
            replacing_file(path) as partial,
            storage.open_input_stream(f"{root}/{key}") as source,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        os.utime(path, ns=(found.mtime_ns, found.mtime_ns))
        self._known[key] = _status(path)

    def _publish_one(
        self, storage: fs.FileSystem, root: str, key: str, status: tuple[int, int]
    ) -> None:
        path = self.folder / key
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        _write(storage, f"{root}/{key}", content)
        changed_ns = storage.get_file_info(f"{root}/{key}").mtime_ns
        # What was written to in the meantime keeps its own time, and so is published again.
        if path.is_file() and _status(path) == status and len(content) == status[0]:
            os.utime(path, ns=(changed_ns, changed_ns))
            status = (status[0], changed_ns)
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


def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    if uri.startswith("s3://"):
        storage, root = _s3(uri)
    elif uri.startswith(("gs://", "gcs://")) and "?" not in uri:
        # By itself it tries again for a quarter of an hour.
        storage, root = fs.FileSystem.from_uri(f"{uri}?retry_limit_seconds={_REQUEST_SECONDS}")
    else:
        storage, root = fs.FileSystem.from_uri(uri)
    return storage, root.rstrip("/")


def _s3(uri: str) -> tuple[fs.FileSystem, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    root, _, query = uri.removeprefix("s3://").partition("?")
    if query:
        storage, path = fs.FileSystem.from_uri(uri)
        return storage, path
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not endpoint:
        region = fs.resolve_s3_region(root.partition("/")[0])
    storage = fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or "us-east-1",
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    return storage, root


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"{uri}: the storage cannot be used ({said}); check that the bucket or folder is "
            "there, the credentials, and AWS_ENDPOINT_URL and the region where they are needed"
        ) from None


def _listed(storage: fs.FileSystem, root: str, key: str) -> dict[str, fs.FileInfo]:
    """The files of a folder, or the file itself, by key."""
    place = f"{root}/{key}".rstrip("/")
    info = storage.get_file_info(place)
    if info.type is fs.FileType.File:
        return {key: info}
    if info.type is fs.FileType.NotFound:
        return {}
    found = storage.get_file_info(fs.FileSelector(place, recursive=True))
    return {
        one.path.removeprefix(f"{root}/"): one
        for one in sorted(found, key=lambda one: one.path)
        if one.type is fs.FileType.File
    }


def _write(storage: fs.FileSystem, place: str, content: bytes) -> None:
    if storage.type_name in _OBJECT_STORES:
        # An object is whole or not there.
        with storage.open_output_stream(place) as target:
            target.write(content)
        return
    folder, _, name = place.rpartition("/")
    storage.create_dir(folder, recursive=True)
    partial = f"{folder}/.partial-{os.getpid()}-{name}"
    with storage.open_output_stream(partial) as target:
        target.write(content)
    storage.move(partial, place)


def _delete(storage: fs.FileSystem, place: str) -> None:
    if storage.get_file_info(place).type is fs.FileType.File:
        storage.delete_file(place)


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
