"""Files in a folder or a .zip, read as what they are: somebody else's.

An *entry* is one file of the archive: its name, its size, and how to read it. Names stay
inside the archive, links and compression are refused (stored entries cannot be larger than
the archive, so that no small file can fill a disk), and damage is one clear line.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from strokeseg.errors import UserError, shown
from strokeseg.storage.files import replacing_file, replacing_folder, unwritable

_BLOCK_BYTES = 1 << 20
# The earliest date that a .zip can tell, so that equal ensembles give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
# What zipfile raises for damage: names that are no text, and, as NotImplementedError, versions and
# ways of packing that it does not know.
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of a bundle: its size in bytes and how to open it."""

    size: int
    open: Callable[[], IO[bytes]]


def write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write contents by name as a .zip of stored entries; equal contents give equal bytes."""
    with replacing_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED)


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write contents by name into a folder, whole or not at all."""
    with replacing_folder(path) as temporary:
        try:
            for name, content in contents.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
        except OSError as error:
            raise unwritable(path, error) from error


@contextmanager
def open_entries(path: Path) -> Iterator[dict[str, Entry]]:
    """Give a bundle's files by name, no content read."""
    if path.is_dir():
        yield _folder_entries(path)
        return
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            entries = _zip_entries(path, archive)
        except (*_DAMAGE, OSError) as error:
            raise UserError(
                f"{path}: cannot be read as a bundle ({shown(str(error))}); fetch it again"
            ) from None
        yield entries


def _folder_entries(path: Path) -> dict[str, Entry]:
    entries = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            raise UserError(f"{path}: a bundle must hold no links, got {name}")
        if file.is_dir():
            continue
        if not file.is_file():
            raise UserError(f"{path}: a bundle must hold plain files, got {name}")
        entries[name] = Entry(size=file.stat().st_size, open=partial(_open_file, file))
    return entries


def _open_file(file: Path) -> IO[bytes]:
    return file.open("rb")


def _zip_entries(path: Path, archive: zipfile.ZipFile) -> dict[str, Entry]:
    entries = {}
    for info in archive.infolist():
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not is_safe(name) or name in entries:
            raise UserError(
                f"{path}: a bundle's names must be relative and differ, got {shown(name)!r}"
            )
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{path}: a bundle must hold plain files, got {shown(name)}")
        # Stored entries cannot be larger than the archive: no small file can fill a disk.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise UserError(
                f"{path}: a bundle's files must be stored as they are, but {shown(name)} is "
                "compressed or encrypted; export the bundle again, or unpack it and give the folder"
            )
        entries[name] = Entry(size=info.file_size, open=partial(archive.open, info))
    if sum(entry.size for entry in entries.values()) > path.stat().st_size:
        raise UserError(f"{path}: the files of a bundle must not overlap; fetch it again")
    return entries


def is_safe(name: str) -> bool:
    """Whether a name stays inside its folder on every system."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and "/".join(parts) == name
        and not name.startswith("/")
        and ".." not in parts
        and not any(character in name for character in "\\:")
        and name.isprintable()
    )


def blocks(path: Path, name: str, entry: Entry) -> Iterator[bytes]:
    """Read a file of a bundle block by block, no more than the size it is entered with."""
    left = entry.size
    try:
        with entry.open() as source:
            while left > 0 and (block := source.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                yield block
    except _DAMAGE:
        raise damaged(path, name) from None
    except OSError as error:
        raise UserError(
            f"{path}: {shown(name)} cannot be read ({error.strerror or error}); permit it, or "
            "fetch the bundle again"
        ) from None


def damaged(path: Path, name: str) -> UserError:
    """Say that an entry is not what it was."""
    return UserError(f"{path}: {shown(name)} was changed or damaged; fetch the bundle again")
