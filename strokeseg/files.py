"""Files that are whole or not there.

A *replacement* is written under a temporary name beside its target and renamed onto it
when it is complete, so that a reader, or a run after a crash, never meets half a file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError

_HASH_BLOCK_BYTES = 1 << 20


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


def unwritable(path: Path, error: Exception) -> UserError:
    """Say that `path` cannot be written, and what to do about it.

    Args:
        path: The file or folder.
        error: An `OSError`, or what a library makes of one.
    """
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(
        f"{path}: cannot be written ({reason or str(error).partition(chr(10))[0]}); "
        "free or permit the place, or choose another"
    )


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: When it is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no valid JSON ({error}); make it anew") from None


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
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no CSV file in UTF-8 ({error}); make it anew") from None


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
