"""Predictors that compute with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import Predictor
from strokeseg.ensemble.vote import Ensemble
from strokeseg.errors import UserError
from strokeseg.records.ensemble import (
    MEMBERS_FOLDER,
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)
from strokeseg.records.member import check_fits
from strokeseg.storage.files import file_sha256
from strokeseg.training.checkpoint import Member, load_member
from strokeseg.training.inference import predict_batch
from strokeseg.training.precision import reduced_type


def load_ensemble(
    folder: Path, comparison: str | None = None, device: torch.device | str = "cpu"
) -> Ensemble:
    """Load the members of an ensemble.

    Args:
        comparison: Load the members of this comparison instead.

    Raises:
        UserError: When the folder is no ensemble, does not know the comparison, or a
            member is damaged or was made for other axes, sequences or spacing.
    """
    record = read_ensemble_record(folder / RECORD_NAME)
    if comparison is not None and comparison not in record.comparison:
        known = ", ".join(sorted(record.comparison)) or "none"
        raise UserError(f"{folder}: has no comparison {comparison!r}, known are {known}")
    chosen = record.members if comparison is None else record.comparison[comparison]
    return Ensemble(
        predictors=load_predictors(folder / MEMBERS_FOLDER, record, chosen, device), record=record
    )


def load_predictors(
    folder: Path,
    record: EnsembleRecord,
    chosen: Mapping[Any, tuple[str, ...]],
    device: torch.device | str = "cpu",
) -> tuple[Predictor, ...]:
    """Load members, axis by axis, from the folder that holds their files.

    Raises:
        UserError: When a file is missing, damaged, not the one that was promoted, or does
            not fit the ensemble.
    """
    names = [(axis, name) for axis, of_axis in chosen.items() for name in of_axis]
    for _, name in names:
        _check_unchanged(folder / name, record)
    predictors = []
    for axis, name in names:
        member = load_member(folder / name)
        check_fits(folder / name, member.record, record, axis)
        predictors.append(as_predictor(name.removesuffix(".safetensors"), member, device))
    return tuple(predictors)


def find_device(name: str | None) -> torch.device:
    """Return a device by its name; without one the GPU where there is one, else the CPU.

    Raises:
        UserError: When a GPU is asked for and torch finds none.
    """
    available = torch.cuda.is_available()
    if name is not None and name.startswith("cuda") and not available:
        raise UserError(f"--device {name}: torch finds no GPU here; use --device cpu")
    return torch.device(name or ("cuda" if available else "cpu"))


def as_predictor(name: str, member: Member, device: torch.device | str = "cpu") -> Predictor:
    """Return a member as a predictor.

    Args:
        name: The member's, as scores and files call it.
        member: The network is moved to the device.
    """
    device = torch.device(device)
    network = member.network
    # Module.to knows memory formats, but its declaration does not.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    # A bundle shall give one mask on every CPU, whether or not it can compute in 16 bits.
    reduced = None if device.type == "cpu" else reduced_type(device, network)

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(images).to(device)
        found: NDArray[np.float32] = predict_batch(network, tensor, reduced)[:, 0].cpu().numpy()
        return found

    record = member.record
    return Predictor(name=name, axis=record.axis, slice_size=record.slice_size, predict=predict)


def _check_unchanged(path: Path, record: EnsembleRecord) -> None:
    try:
        given = file_sha256(path)
    except OSError as error:
        raise UserError(
            f"{path}: is no readable member ({error.strerror}); promote again"
        ) from None
    if given != record.sha256.get(path.name):
        raise UserError(f"{path}: was changed after it was promoted; promote again")
