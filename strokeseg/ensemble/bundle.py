"""The bundle: an ensemble as one file that travels.

A *bundle* is a folder, or a .zip of stored entries, laid out like a MONAI Bundle:

    LICENSE, docs/README.md         what the exporter gives along
    configs/metadata.json           the same, what goes in and what comes out
    configs/ensemble.json           the ensemble's record, without comparisons
    models/<member>.safetensors     for PyTorch
    models/<member>.onnx            the same networks for onnxruntime
    checksums.json                  format, and SHA-256 and size of every other file

It is untrusted input: it holds no code and no pickle, and nothing in it is used before
its name, size and checksum have been compared. Opening it needs one *runtime*, `torch` or
`onnx`, and imports nothing of the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from strokeseg.ensemble.archive import is_safe, open_entries, write_folder, write_zip
from strokeseg.ensemble.checksums import (
    CHECKSUMS,
    check_content,
    check_names,
    checksums_of,
    checksums_sha256,
    read_checksums,
)
from strokeseg.ensemble.runtimes import Runtime, choose_runtime
from strokeseg.ensemble.slicewise import Predictor
from strokeseg.ensemble.vote import Ensemble
from strokeseg.errors import UserError
from strokeseg.records.ensemble import (
    MEMBERS_FOLDER,
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)

_RECORD = f"configs/{RECORD_NAME}"
_MODELS = "models"
_ENDINGS: Mapping[Runtime, str] = {"torch": ".safetensors", "onnx": ".onnx"}


def write_bundle(
    path: Path,
    ensemble_folder: Path,
    *,
    onnx_files: Mapping[str, bytes],
    extra: Mapping[str, str | bytes],
) -> None:
    """Write an ensemble as a bundle; equal input gives equal bytes.

    Args:
        path: A name that ends in .zip, or a folder; replaced when it is there.
        onnx_files: Every member's ONNX file, by the name of its safetensors.
        extra: Further files by their names in the bundle, such as `LICENSE`,
            `docs/README.md` and `configs/metadata.json`.

    Raises:
        ValueError: When a name in `extra` is taken or unsafe, or `onnx_files` are those of
            other members.
        UserError: When the ensemble cannot be read or the bundle cannot be written.
    """
    check_place(path)
    record = exported_record(ensemble_folder)
    if record.file_names() != onnx_files.keys():
        raise ValueError(
            f"a bundle needs the ONNX files of {sorted(record.file_names())}, "
            f"got {sorted(onnx_files)}"
        )
    contents = {_RECORD: _json(record.model_dump(mode="json"))}
    for name in sorted(record.file_names()):
        contents[f"{_MODELS}/{name}"] = _read_member(
            ensemble_folder / MEMBERS_FOLDER / name, record.sha256.get(name)
        )
        onnx = name.removesuffix(_ENDINGS["torch"]) + _ENDINGS["onnx"]
        contents[f"{_MODELS}/{onnx}"] = onnx_files[name]
    for name, content in extra.items():
        if name in contents or name == CHECKSUMS or not is_safe(name):
            raise ValueError(f"an extra file needs a free and relative name, got {name!r}")
        contents[name] = content.encode() if isinstance(content, str) else content
    contents[CHECKSUMS] = _json(checksums_of(contents))
    if _is_zip(path):
        write_zip(path, contents)
    else:
        write_folder(path, contents)


def check_place(path: Path) -> None:
    """Make sure that a bundle written there replaces nothing but a bundle.

    Raises:
        UserError: When it is a folder of other files.
    """
    if _is_zip(path) or not path.is_dir() or (path / CHECKSUMS).is_file():
        return
    if any(path.iterdir()):
        raise UserError(
            f"{path}: holds other files, and a bundle would take their place; name a .zip in it, "
            "or another folder"
        )


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def open_bundle(path: Path, runtime: Runtime | None = None, device: str | None = None) -> Ensemble:
    """Check a bundle and load its ensemble.

    What is loaded are checked copies in a private temporary folder.

    Args:
        path: The .zip or folder.
        runtime: What shall compute the networks; None for PyTorch where it is installed,
            else onnxruntime.
        device: `cpu`, `cuda`, or None for the GPU where the runtime finds one.

    Raises:
        UserError: When the bundle is missing, damaged or of another format; when it holds
            an unsafe name, a link, a file that `checksums.json` does not list or none that
            it lists, or a file of another size or content; when a member does not fit; when
            the runtime or the device is missing; or when there is no room for the temporary
            folder.
    """
    runtime = choose_runtime(runtime)
    with open_entries(path) as entries, _private_folder() as private:
        checksums = read_checksums(path, entries)
        check_names(path, entries, checksums)
        for name, checksum in checksums.items():
            needed = name == _RECORD or name.endswith(_ENDINGS[runtime])
            copy = Path(private) / name if needed else None
            check_content(path, name, entries[name], checksum, copy)
        try:
            record = read_ensemble_record(Path(private) / _RECORD)
            predictors = _load_predictors(Path(private) / _MODELS, record, runtime, device)
        except UserError as error:
            # The temporary place means nothing to the user.
            message = str(error).removeprefix(private + os.sep)
            raise UserError(message if "--device" in message else f"{path}: {message}") from None
    return Ensemble(predictors=predictors, record=record)


def bundle_sha256(path: Path) -> str:
    """Return the hash that tells one bundle from another, as a .zip or unpacked.

    It is that of `checksums.json`, which holds those of all other files.

    Raises:
        UserError: When there is no bundle of this format.
    """
    with open_entries(path) as entries:
        return checksums_sha256(path, entries)


def _load_predictors(
    folder: Path, record: EnsembleRecord, runtime: Runtime, device: str | None
) -> tuple[Predictor, ...]:
    # Each runtime is imported where it is used, since the other may not be installed.
    if runtime == "onnx":
        from strokeseg.ensemble.onnx_predictor import load_onnx_predictors  # noqa: PLC0415

        return load_onnx_predictors(folder, record, device)
    from strokeseg.ensemble.torch_predictor import find_device, load_predictors  # noqa: PLC0415

    return load_predictors(folder, record, record.members, find_device(device))


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


def exported_record(ensemble_folder: Path) -> EnsembleRecord:
    """Return the record of an ensemble as its bundle has it: without comparisons.

    Raises:
        UserError: When there is no ensemble.
    """
    record = read_ensemble_record(ensemble_folder / RECORD_NAME)
    record = record.model_copy(update={"comparison": {}})
    sha256 = {name: hash_ for name, hash_ in record.sha256.items() if name in record.file_names()}
    return record.model_copy(update={"sha256": sha256})


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def _read_member(path: Path, sha256: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); promote again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: was changed after it was promoted; promote again")
    return content
