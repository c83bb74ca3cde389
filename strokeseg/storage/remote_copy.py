"""A working copy of what lies at a URI, for code that needs a file system.

A *storage* is what a URI such as `s3://bucket/prefix` names. A *remote copy* is a storage
with its local folder. A command *fetches* the folder when it starts, and its own process
*publishes* what changed there, every some seconds and at the end; all others, Ray's tasks and
trials among them, know of the folder alone, which all nodes of a cluster must share.

Trials write while the driver publishes, and a machine that is lost may leave any part of it on the
storage. A *record*, a JSON file or a study's journal, says what other files hold: it is read before
them and written after them, so that the storage never knows of an epoch or a mask that it lacks.
So is a trial's state towards the weights beside it. A *marker* is the record that says that its
folder is complete: it also leaves the storage before anything beside it changes.

A file is identified by size and time of change. Publishing gives the local file the storage's time;
where the two differ, the newer one holds.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strokeseg.errors import UserError
from strokeseg.storage.files import replacing_file, unwritable

if TYPE_CHECKING:
    from strokeseg.storage.uri import Found, Storage

_MARKERS = {"preparation.json", "ensemble.json", "summary.json"}
_JOURNAL, _STATE = "journal.log", "state.pt"
_PROBE = ".writable"
# Another node may replace a file while this one reads it: NFS keeps no file that has no name.
_REPLACED = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}

# Size, time of change in nanoseconds, and inode: a file that is replaced gets another one.
_Status = tuple[int, int, int]


@dataclass(frozen=True)
class RemoteCopy:
    """A storage and its working copy.

    Attributes:
        uri: The storage.
        folder: The working copy.
    """

    uri: str
    folder: Path
    # Files that this process knows to be on the storage, as they were here.
    _known: dict[str, _Status] = field(default_factory=dict, compare=False, repr=False)
    _turn: Any = field(default_factory=threading.RLock, compare=False, repr=False)

    def fetch(self, path: Path | None = None) -> None:
        """Copy all files, or one alone, from the storage where it has newer ones.

        Raises:
            UserError: When the storage does not answer, or this disk cannot take them.
        """
        with self._turn, _opened(self.uri) as storage:
            make_private(self.folder)
            for key, found in storage.listed("" if path is None else self._key(path)).items():
                if not any(map(_is_passing, key.split("/"))):
                    self._fetch_one(storage, key, found)

    def publish(self) -> None:
        """Copy what changed to the storage, and remove there what has gone.

        Raises:
            UserError: When the storage does not answer, or the working copy as a whole has gone.
        """
        with self._turn:
            if not self.folder.is_dir():
                raise UserError(
                    f"{self.folder}: the working copy of {self.uri} has gone; the same command "
                    "fetches what was published and goes on from there"
                )
            changed = self._changed()
            gone = [name for name in self._known if _has_gone(self.folder / name)]
            if not changed and not gone:
                return
            records = {
                name: taken
                for name in changed
                if _is_record(name) and (taken := self._take(name)) is not None
            }
            with _opened(self.uri) as storage:
                for name in [*filter(_is_marker, changed), *filter(_is_json, gone)]:
                    storage.delete(name)
                # Asked again, for what was new when the records were read.
                for name in self._changed():
                    if not _is_record(name):
                        self._publish_one(storage, name)
                for name, taken in records.items():
                    if not _is_marker(name):
                        self._write(storage, name, *taken)
                for name in gone:
                    storage.delete(name)
                    del self._known[name]
                for name in filter(_is_marker, records):
                    self._write(storage, name, *records[name])

    def remove(self, path: Path) -> None:
        """Remove a file from the storage only.

        Raises:
            UserError: When the storage does not answer.
        """
        with _opened(self.uri) as storage:
            storage.delete(self._key(path))

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
        return path.relative_to(self.folder).as_posix()

    def _changed(self) -> list[str]:
        """Return the files here that the storage has not, or not as they are here."""
        changed = []
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not _is_passing(name)]
            for path in (Path(place, name) for name in names if not _is_passing(name)):
                key, found = self._key(path), _status(path)
                if found is not None and self._known.get(key) != found:
                    changed.append(key)
        return sorted(changed)

    def _take(self, name: str) -> tuple[_Status, bytes] | None:
        """Read a file that others may replace or remove; the status is no newer than the bytes."""
        found = _status(self.folder / name)
        try:
            return None if found is None else (found, (self.folder / name).read_bytes())
        except OSError as error:
            if error.errno not in _REPLACED:
                raise _unreadable(self.folder / name, error) from None
            return None

    def _publish_one(self, storage: Storage, name: str) -> None:
        taken = self._take(name)
        if taken is None:
            # The next time tells.
            return
        if Path(name).name == _STATE:
            # A trial writes its weights first, and their sizes never change.
            for path in (self.folder / name).parent.glob("*.safetensors"):
                beside = self._key(path)
                if not _is_passing(path.name) and self._known.get(beside) != _status(path):
                    self._publish_one(storage, beside)
        self._write(storage, name, *taken)

    def _write(self, storage: Storage, name: str, before: _Status, content: bytes) -> None:
        storage.write(name, content)
        there = storage.find(name)
        self._known[name] = before
        path = self.folder / name
        now = _status(path)
        if there is None or now is None:
            return
        if now == before and len(content) == before[0]:
            _date(path, there.changed_ns)
            dated = _status(path)
            if dated is not None and (dated[0], dated[2]) == (before[0], before[2]):
                self._known[name] = dated
        elif now[1] <= there.changed_ns:
            # Newer than what is there, whatever the clocks say.
            _date(path, there.changed_ns + 1)

    def _fetch_one(self, storage: Storage, key: str, found: Found) -> None:
        path = self.folder / key
        here, known = _status(path), self._known.get(key)
        if known not in (None, here):
            # Changed or removed here, and about to be so there.
            return
        if here is not None:
            size, changed_ns, _ = here
            # A journal that has grown since it was published has the storage's time.
            if (changed_ns, size) > (found.changed_ns, found.size):
                return
            if (changed_ns, size) == (found.changed_ns, found.size):
                self._known[key] = here
                return
        with (
            replacing_file(path) as partial,
            storage.open(key) as source,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        os.utime(path, ns=(found.changed_ns, found.changed_ns))
        if fetched_as := _status(path):
            self._known[key] = fetched_as


def is_uri(place: str) -> bool:
    """Whether a place is a URI rather than a path."""
    return "://" in place


def remote_copy_of(uri: str) -> RemoteCopy:
    """Return the remote copy of a URI, in this user's own part of the temporary folder."""
    name = hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]
    return RemoteCopy(uri.rstrip("/"), _work_folder() / name)


def is_working_copy(path: Path) -> bool:
    """Whether a path lies in a remote copy's folder."""
    return path.is_relative_to(_work_folder())


def _work_folder() -> Path:
    place = os.environ.get("STROKESEG_WORK") or tempfile.gettempdir()
    return Path(place).absolute() / f"strokeseg-{os.getuid()}"


def fetched(place: Path | str | None, option: str) -> Path | None:
    """Return a path to read an option's place at, fetched if the place is a URI.

    Raises:
        UserError: When the storage does not answer, or holds nothing there.
    """
    if place is None or not is_uri(str(place)):
        return None if place is None else Path(place)
    uri = str(place)
    # A file is read with all that lies beside it, since a manifest names such files.
    parent, _, name = uri.rstrip("/").rpartition("/")
    is_file = Path(name).suffix in {".csv", ".zip"}
    remote_copy = remote_copy_of(parent if is_file else uri)
    remote_copy.check(writes=False)
    path = remote_copy.folder / name if is_file else remote_copy.folder
    remote_copy.fetch(path if Path(name).suffix == ".zip" else None)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{option} {uri}: there is nothing; correct it")
    return path


def make_private(folder: Path) -> None:
    """Make a remote copy's folder and its parent, which only this user may enter.

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
        from strokeseg.storage.uri import open_storage  # noqa: PLC0415
    except ModuleNotFoundError:
        raise UserError(f"{uri}: URIs need pyarrow; install it, or give a folder") from None
    with open_storage(uri) as storage:
        yield storage


def _status(path: Path) -> _Status | None:
    """Return what tells a file from others of its name; none for what is no file."""
    try:
        found = path.lstat()
    except OSError as error:
        if error.errno not in _REPLACED:
            raise _unreadable(path, error) from None
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}); permit it")


def _has_gone(path: Path) -> bool:
    # A folder that cannot be listed just now must not empty the storage.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _date(path: Path, changed_ns: int) -> None:
    with suppress(FileNotFoundError):
        os.utime(path, ns=(changed_ns, changed_ns))


def _is_json(name: str) -> bool:
    return name.endswith(".json")


def _is_record(name: str) -> bool:
    return _is_json(name) or Path(name).name == _JOURNAL


def _is_marker(name: str) -> bool:
    return Path(name).name in _MARKERS


def _is_passing(name: str) -> bool:
    """Whether a file or folder is nobody else's business: half written, a lock, Tune's scratch."""
    return (
        name in {"tune", _PROBE}
        or name.startswith((".partial-", ".probe-"))
        or name.endswith((".lock", ".lease"))
    )
