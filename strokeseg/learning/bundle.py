"""The bundle: an ensemble as one file that travels.

A *bundle* is a folder, or a .zip of stored entries, laid out like a MONAI Bundle:

    LICENSE, docs/README.md         what the exporter gives along
    configs/metadata.json           what goes in and what comes out
    configs/ensemble.json           the ensemble's record, without comparisons
    models/<axis>-<trial>.safetensors
    checksums.json                  format, and SHA-256 and size of every other file

It is untrusted input: it holds no code and no pickle, and nothing in it is used before
its name, size and checksum have been compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from strokeseg.config import Record, parse_record
from strokeseg.errors import UserError
from strokeseg.files import unwritable
from strokeseg.learning.archive import (
    Entry,
    blocks,
    damaged,
    is_safe,
    open_entries,
    write_folder,
    write_zip,
)
from strokeseg.learning.ensemble import Ensemble
from strokeseg.learning.ensemble_record import (
    MEMBERS_FOLDER,
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)
from strokeseg.learning.torch_experts import load_experts

_FORMAT = 1
_CHECKSUMS = "checksums.json"
_RECORD = f"configs/{RECORD_NAME}"
_METADATA = "configs/metadata.json"
_MODELS = "models"
_LARGEST_CHECKSUMS_BYTES = 1 << 20


class _Checksum(Record):
    sha256: str
    bytes: Annotated[int, Field(ge=0)]


class _Checksums(Record):
    format: Literal[1]
    files: dict[str, _Checksum]


def write_bundle(path: Path, ensemble_folder: Path, *, extra: Mapping[str, str | bytes]) -> None:
    """Write an ensemble as a bundle; equal input gives equal bytes.

    Args:
        path: A name that ends in .zip, or a folder; replaced when it is there.
        ensemble_folder: The ensemble.
        extra: Further files by their names in the bundle, such as `LICENSE` and
            `docs/README.md`.

    Raises:
        ValueError: When a name in `extra` is taken or unsafe.
        UserError: When the ensemble cannot be read or the bundle cannot be written.
    """
    record = read_ensemble_record(ensemble_folder / RECORD_NAME)
    record = _without_comparisons(record)
    contents = {
        _RECORD: _json(record.model_dump(mode="json")),
        _METADATA: _json(_metadata(record)),
    }
    for name in sorted(record.file_names()):
        contents[f"{_MODELS}/{name}"] = _read_member(
            ensemble_folder / MEMBERS_FOLDER / name, record.sha256.get(name)
        )
    for name, content in extra.items():
        if name in contents or name == _CHECKSUMS or not is_safe(name):
            raise ValueError(f"an extra file needs a free and relative name, got {name!r}")
        contents[name] = content.encode() if isinstance(content, str) else content
    contents[_CHECKSUMS] = _json(
        {
            "format": _FORMAT,
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in sorted(contents.items())
            },
        }
    )
    if path.suffix == ".zip":
        write_zip(path, contents)
    else:
        write_folder(path, contents)


def open_bundle(path: Path, device: torch.device | str = "cpu") -> Ensemble:
    """Check a bundle and load its ensemble.

    What is loaded are checked copies in a private temporary folder.

    Raises:
        UserError: When the bundle is missing, damaged or of another format; when it holds
            an unsafe name, a link, a file that `checksums.json` does not list or none that
            it lists, or a file of another size or content; when a member does not fit; or
            when there is no room for the temporary folder.
    """
    with open_entries(path) as entries, _private_folder() as private:
        checksums = _read_checksums(path, entries)
        _check_names(path, entries, checksums)
        for name, checksum in checksums.items():
            _copy_checked(path, name, entries[name], checksum, Path(private) / name)
        try:
            record = read_ensemble_record(Path(private) / _RECORD)
            experts = load_experts(Path(private) / _MODELS, record, record.members, device)
        except UserError as error:
            # The temporary place means nothing to the user.
            raise UserError(f"{path}: {str(error).removeprefix(private + os.sep)}") from None
    return Ensemble(experts=experts, record=record)


@contextmanager
def _private_folder() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        except OSError as error:
            raise UserError(
                "a bundle needs a temporary folder to be opened in, but none can be made "
                f"({error.strerror}); set TMPDIR to a folder that can be written"
            ) from None
        yield folder


def _without_comparisons(record: EnsembleRecord) -> EnsembleRecord:
    record = record.model_copy(update={"comparison": {}})
    sha256 = {name: hash_ for name, hash_ in record.sha256.items() if name in record.file_names()}
    return record.model_copy(update={"sha256": sha256})


def _metadata(record: EnsembleRecord) -> dict[str, Any]:
    image = {
        "type": "image",
        "format": "magnitude",
        "channel_def": dict(enumerate(record.sequences)),
    }
    return {
        "name": record.name,
        "version": record.code_version,
        "task": "segmentation of ischemic stroke lesions in multi-sequence MRI",
        "intended_use": "research only; not a medical device",
        "data_preparation": {"sha256": record.preparation_hash, "spacing_mm": record.spacing_mm},
        "network_data_format": {
            "inputs": {"image": {**image, "num_channels": len(record.sequences)}},
            "outputs": {
                "pred": {"type": "image", "format": "segmentation", "channel_def": {"0": "lesion"}}
            },
        },
    }


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def _read_member(path: Path, sha256: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); promote anew") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: was changed after it was promoted; promote anew")
    return content


def _read_checksums(path: Path, entries: Mapping[str, Entry]) -> dict[str, _Checksum]:
    entry = entries.get(_CHECKSUMS)
    if entry is None or entry.size > _LARGEST_CHECKSUMS_BYTES:
        raise UserError(f"{path}: is no bundle of strokeseg, it has no proper {_CHECKSUMS}")
    try:
        values = json.loads(b"".join(blocks(path, _CHECKSUMS, entry)))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: {_CHECKSUMS} is no valid JSON; fetch the bundle anew") from None
    given = values.get("format") if isinstance(values, dict) else None
    if not isinstance(given, int):
        raise UserError(f"{path}: is no bundle of strokeseg, its {_CHECKSUMS} tells no format")
    if given != _FORMAT:
        raise UserError(
            f"{path}: was made by another version of strokeseg (format {given}, this one reads "
            f"{_FORMAT}); use that version"
        )
    return parse_record(_Checksums, values, f"{path}: {_CHECKSUMS}").files


def _check_names(
    path: Path, entries: Mapping[str, Entry], checksums: Mapping[str, _Checksum]
) -> None:
    for name in checksums:
        if not is_safe(name):
            raise UserError(f"{path}: a bundle's names must be relative, got {name!r}")
    missing = sorted(checksums.keys() - entries.keys())
    unlisted = sorted(entries.keys() - checksums.keys() - {_CHECKSUMS})
    if missing or unlisted:
        raise UserError(
            f"{path}: a bundle must hold the files that {_CHECKSUMS} lists, "
            f"but {', '.join(missing) or 'none'} missing and {', '.join(unlisted) or 'none'} "
            "in excess; fetch it anew"
        )


def _copy_checked(path: Path, name: str, entry: Entry, checksum: _Checksum, target: Path) -> None:
    """Copy a file to `target` while its size and content are what they should be."""
    if entry.size != checksum.bytes:
        raise damaged(path, name)
    digest = hashlib.sha256()
    copied = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            for block in blocks(path, name, entry):
                copied += len(block)
                digest.update(block)
                copy.write(block)
    except OSError as error:
        raise unwritable(target, error) from error
    if copied != checksum.bytes or digest.hexdigest() != checksum.sha256:
        raise damaged(path, name)
