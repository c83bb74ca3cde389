"""Predictors that compute with onnxruntime, in an environment that has no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_state

from strokeseg.ensemble.onnx_file import check_onnx
from strokeseg.ensemble.slicewise import Predictor
from strokeseg.errors import UserError
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.member import check_fits, parse_member_record

IMAGE, PROBABILITY = "image", "probability"

# What a session raises for a model that it cannot load; they share no base but Exception.
_REFUSALS = (
    runtime_state.Fail,
    runtime_state.InvalidArgument,
    runtime_state.InvalidGraph,
    runtime_state.InvalidProtobuf,
    runtime_state.NoModel,
    runtime_state.NotImplemented,
    runtime_state.RuntimeException,
)
_SILENT = 4


def onnx_name(member: str) -> str:
    """Return the name of a member's ONNX file, given that of its safetensors."""
    return member.removesuffix(".safetensors") + ".onnx"


def load_onnx_predictors(
    folder: Path, record: EnsembleRecord, device: str | None = "cpu"
) -> tuple[Predictor, ...]:
    """Load an ensemble's members, axis by axis, from the folder that holds their ONNX files.

    Args:
        folder: The files are taken as they are: who gives them has checked what they are.
        device: `cpu`, `cuda`, or None for the GPU where onnxruntime knows one.

    Raises:
        UserError: When a file is missing or damaged, points outside itself, or does not fit the
            ensemble; or when a GPU is asked for and there is none.
    """
    providers = _providers(device)
    return tuple(
        _load(folder / onnx_name(name), record, axis, providers)
        for axis, names in record.members.items()
        for name in names
    )


def read_onnx_predictor(
    path: Path, content: bytes, axis: str, record: EnsembleRecord, device: str | None = "cpu"
) -> Predictor:
    """Return the member that an ONNX file's content holds as a predictor.

    Args:
        path: What messages call the file.
        axis: The axis for which the ensemble has it.
        device: As for `load_onnx_predictors`.

    Raises:
        UserError: As for `load_onnx_predictors`.
    """
    return _predictor(path, content, record, axis, _providers(device))


def _load(path: Path, record: EnsembleRecord, axis: str, providers: list[str]) -> Predictor:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: is no readable member ({error.strerror})") from None
    return _predictor(path, content, record, axis, providers)


def _predictor(
    path: Path, content: bytes, record: EnsembleRecord, axis: str, providers: list[str]
) -> Predictor:
    session = _session(path, content, providers)
    member = parse_member_record(path, session.get_modelmeta().custom_metadata_map)
    check_fits(path, member, record, axis)

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = session.run([PROBABILITY], {IMAGE: images})
        expected = (len(images), 1, *images.shape[2:])
        if found.shape != expected or found.dtype != np.float32:
            raise UserError(
                f"{path.name}: must give float32 of shape {expected}, got {found.dtype} of "
                f"{found.shape}; export the bundle again"
            )
        # As `inference.predict_batch`: outside the brain there is no lesion.
        brain = (images != 0).any(axis=1)
        probability: NDArray[np.float32] = found[:, 0] * brain
        return probability

    return Predictor(name=path.stem, axis=axis, slice_size=member.slice_size, predict=predict)


def _session(path: Path, content: bytes, providers: list[str]) -> Any:
    check_onnx(str(path), content)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except _REFUSALS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: onnxruntime cannot load it ({reason})") from None
    names = [given.name for given in (*session.get_inputs(), *session.get_outputs())]
    if names != [IMAGE, PROBABILITY]:
        raise UserError(f"{path}: must take {IMAGE} and give {PROBABILITY}, got {names}")
    return session


def _providers(device: str | None) -> list[str]:
    gpu = "CUDAExecutionProvider"
    known = gpu in onnxruntime.get_available_providers()
    if device is not None and device.startswith("cuda") and not known:
        raise UserError(
            f"--device {device}: onnxruntime finds no GPU here; install onnxruntime-gpu in place "
            "of onnxruntime, or use --device cpu"
        )
    cpu = "CPUExecutionProvider"
    return [gpu, cpu] if known and device != "cpu" else [cpu]
