"""The checksums of a bundle: what each of its files must be, before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from strokeseg.ensemble.archive import Entry, blocks, damaged, is_safe
from strokeseg.errors import UserError, listed, shown
from strokeseg.records.record import Record, parse_record
from strokeseg.storage.files import unwritable

CHECKSUMS = "checksums.json"

_FORMAT = 2
_LARGEST_BYTES = 1 << 20


class Checksum(Record):
    """What one file must be."""

    sha256: str
    bytes: Annotated[int, Field(ge=0)]


class _Checksums(Record):
    format: Literal[2]
    files: dict[str, Checksum]


def checksums_of(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what `checksums.json` says of files, by their names."""
    return {
        "format": _FORMAT,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in sorted(contents.items())
        },
    }


def checksums_sha256(path: Path, entries: Mapping[str, Entry]) -> str:
    """Return the hash of a bundle's checksums, and so of all that it holds.

    Raises:
        UserError: When there is no bundle of this format.
    """
    read_checksums(path, entries)
    return hashlib.sha256(b"".join(blocks(path, CHECKSUMS, entries[CHECKSUMS]))).hexdigest()


def read_checksums(path: Path, entries: Mapping[str, Entry]) -> dict[str, Checksum]:
    """Read what a bundle's files must be, by their names.

    Args:
        path: The bundle, for errors.
        entries: What lies in it.

    Raises:
        UserError: When that is no bundle, is damaged, or of another format.
    """
    entry = entries.get(CHECKSUMS)
    if entry is None or entry.size > _LARGEST_BYTES:
        raise UserError(f"{path}: is no bundle of strokeseg, it has no proper {CHECKSUMS}")
    try:
        values = json.loads(b"".join(blocks(path, CHECKSUMS, entry)))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: {CHECKSUMS} is no valid JSON; fetch the bundle again") from None
    given = values.get("format") if isinstance(values, dict) else None
    if not isinstance(given, int):
        raise UserError(f"{path}: is no bundle of strokeseg, its {CHECKSUMS} tells no format")
    if given != _FORMAT:
        raise UserError(
            f"{path}: was made by another version of strokeseg (format {given}, this one reads "
            f"{_FORMAT}); use that version"
        )
    return parse_record(_Checksums, values, f"{path}: {CHECKSUMS}").files


def check_names(
    path: Path, entries: Mapping[str, Entry], checksums: Mapping[str, Checksum]
) -> None:
    """Check that a bundle holds the files that its checksums list, by safe names, and no others.

    Raises:
        UserError: When it does not.
    """
    for name in checksums:
        if not is_safe(name):
            raise UserError(f"{path}: a bundle's names must be relative, got {shown(name)!r}")
    missing = sorted(checksums.keys() - entries.keys())
    unlisted = sorted(entries.keys() - checksums.keys() - {CHECKSUMS})
    if missing or unlisted:
        raise UserError(
            f"{path}: a bundle must hold the files that {CHECKSUMS} lists, "
            f"but {_names(missing)} missing and {_names(unlisted)} "
            "in excess; fetch it again"
        )


def _names(names: Sequence[str]) -> str:
    return listed([shown(name) for name in names]) or "none"


def check_content(
    path: Path, name: str, entry: Entry, checksum: Checksum, copy: Path | None
) -> None:
    """Check that a file has the size and content it should have, and copy it where asked to.

    Args:
        path: The bundle, for errors.
        name: The file's in it.
        checksum: What it must be.
        copy: Where to write it; None for no copy.

    Raises:
        UserError: When it is another, or the copy cannot be written.
    """
    if entry.size != checksum.bytes:
        raise damaged(path, name)
    digest = hashlib.sha256()
    read = 0
    with ExitStack() as stack:
        target = None if copy is None else stack.enter_context(_writing(copy))
        for block in blocks(path, name, entry):
            read += len(block)
            digest.update(block)
            if target is not None:
                target.write(block)
    if read != checksum.bytes or digest.hexdigest() != checksum.sha256:
        raise damaged(path, name)


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise unwritable(path, error) from error
