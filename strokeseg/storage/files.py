"""Files that are whole or not there.

A *replacement* is written under a temporary name beside its target and renamed onto it
when it is complete, so that a reader, or a run after a crash, never meets half a file.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from strokeseg.errors import StorageError, UserError, shown

_STORAGE_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
_OS_ERROR = re.compile(r"\[Errno (?P<number>\d+)\] (?P<reason>[^:\n]+)(: '(?P<path>[^']+)')?")
_HASH_BLOCK_BYTES = 1 << 20
# Of JSON and CSV: the records of 10,000 cases have a third of it. As values they take ten or
# twenty times as much memory.
_MOST_BYTES = 1 << 25
_MOST_CELLS = 5_000_000


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; rename it onto `path` at the end.

    The temporary name keeps all of the target's suffixes, since writers choose their
    format by them.

    Raises:
        UserError: When the folder cannot be written to.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        # A read-only disk refuses even to remove what is not there; that was reported already.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; rename it onto `path` at the end.

    A folder that is there already is removed only when the new one is in its place.

    Raises:
        UserError: When the parent folder cannot be written to, or `path` is no folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        # The body may read as well as write: what it raises is its own to explain.
        try:
            _put_in_place(temporary, path)
        except OSError as error:
            raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        os.replace(temporary, path)
        return
    outgoing = temporary.with_name(temporary.name + "-old")
    os.replace(path, outgoing)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(outgoing, path)
        raise
    shutil.rmtree(outgoing, ignore_errors=True)


def unwritable(path: Path, error: Exception) -> StorageError:
    """Say that `path` cannot be written, and what to do about it.

    Args:
        path: The file or folder.
        error: An `OSError`, or what a library makes of one.
    """
    reason = error.strerror if isinstance(error, OSError) else None
    return StorageError(
        f"{path}: cannot be written ({reason or str(error).partition(chr(10))[0]}); "
        "free or permit the place, or choose another"
    )


def storage_fault(error: BaseException | None) -> OSError | None:
    """Return the full or read-only disk behind an exception, if that is what it comes of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE_FAULTS:
            return error
        error = error.__cause__ or error.__context__
    return None


def parse_storage_fault(message: str) -> str | None:
    """Return what a message says of a full or read-only disk, if that is what it tells of.

    Args:
        message: Of an `OSError` that was raised in another process.
    """
    found = _OS_ERROR.search(message)
    if found is None or int(found["number"]) not in _STORAGE_FAULTS:
        return None
    where = f"{found['path']}: " if found["path"] else ""
    return f"{where}cannot be written ({found['reason']})"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: cannot be read (it is no file); remove it")
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: must have at most {_MOST_BYTES} bytes; make it again")
    return content.decode()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: When it is missing or is no JSON.
    """
    try:
        return json.loads(_read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no valid JSON ({shown(str(error))}); make it again") from None


@contextmanager
def converts_errors(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Say in one line that a file of our own is not as we write it, where reading it goes wrong.

    Args:
        what: What it should be.
        remedy: What to do about it.

    Raises:
        UserError: For whatever missing entries, other types and other numbers make Python raise.
    """
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        reason = shown(" ".join(f"{type(error).__name__}: {error}".split()))
        raise UserError(
            f"{path}: is no {what} as strokeseg writes it ({reason}); {remedy}"
        ) from None


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV with a header, whole or not at all; `None` becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header, every cell as text.

    Raises:
        UserError: When it is missing.
    """
    try:
        reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
        rows = list(islice(reader, _MOST_CELLS // max(1, len(reader.fieldnames or ()))))
        if next(reader, None) is not None:
            raise UserError(f"{path}: must have at most {_MOST_CELLS} cells; make it again")
        return rows
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: is no CSV file in UTF-8 ({shown(str(error))}); make it again"
        ) from None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def values_sha256(values: Any) -> str:
    """Return the SHA-256 of plain values in canonical JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
