"""Where untrusted files are tried: good files, of which a few give way to bad ones.

An *input* is some files, by their names in a workspace, and a note of what was done to them. A
*workspace* is a folder in which a command finds all it needs, all of it good, until an input's
files take the place of the good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Input:
    """Files to try.

    Attributes:
        files: Content by name; None for a file that is missing.
        note: What was done to them.
    """

    files: Mapping[str, bytes | None]
    note: str


class Workspace:
    """A folder of good files for one entrance.

    Args:
        folder: Where the good files lie; what an input or a command changes is undone after it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self._good = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._times = {name: self._time(name) for name in self._good}

    @property
    def names(self) -> list[str]:
        """Names of all good files."""
        return list(self._good)

    def good(self, name: str) -> bytes:
        """The content of a good file."""
        return self._good[name]

    def lay(self, given: Input) -> None:
        """Put an input's files in the place of the good ones."""
        for name, content in given.files.items():
            path = self.folder / name
            path.unlink(missing_ok=True)
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def clear(self) -> None:
        """Bring the good files back, and remove all others."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink() or (path.is_file() and name not in self._good):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for name, content in self._good.items():
            path = self.folder / name
            if not path.is_file() or self._time(name) != self._times[name]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._times[name] = self._time(name)

    def _time(self, name: str) -> int:
        return (self.folder / name).stat().st_mtime_ns
