"""A trained network on disk.

A *member* is one trial's best network, a candidate for the ensemble: a single safetensors
file whose metadata holds the *record* of what made it, enough to build the network again
without any download. A *state* is what an interrupted training goes on from; it is for
this machine only and never part of an ensemble.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from strokeseg.config import (
    Record,
    Sequences,
    SliceSize,
    SpacingMm,
    TrialConfig,
    parse_record,
)
from strokeseg.errors import UserError
from strokeseg.files import replacing_file, unwritable
from strokeseg.learning.networks import build_network

_METADATA_KEY = "strokeseg"


class MemberRecord(Record):
    """What made a member.

    Attributes:
        axis: The axis that its slices were cut along.
        trial: The trial's number in the axis's study.
        fold: The fold that scored it, on whose patients it was not trained.
        config: The trial's configuration.
        channels: Sequences in the order of the network's channels.
        dice: Mean 3D Dice over the validation cases at `epoch`.
        epoch: The epoch of these weights, from 1.
        spacing_mm: Voxel size (x, y, z) that the cases were resampled to, 0.1 to 20;
            nothing when they kept their own.
        slice_size: Height and width of the slices in training, multiples of 32.
        weights_source: Where the encoder's first weights came from; nothing for random.
        preparation_hash: Of the prepared data.
        code_version: Of strokeseg.
    """

    axis: Literal["axial", "coronal", "sagittal"]
    trial: int
    fold: int = 0
    config: TrialConfig
    channels: Sequences
    dice: float
    epoch: int
    spacing_mm: SpacingMm | None = None
    slice_size: SliceSize | None = None
    weights_source: str | None = None
    preparation_hash: str
    code_version: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A trained network on the CPU, in evaluation mode, and its record."""

    network: nn.Module
    record: MemberRecord


def save_member(path: Path, network: nn.Module, record: MemberRecord) -> None:
    """Write a network's weights and its record as one safetensors file.

    Raises:
        UserError: When the file cannot be written.
    """
    # Channels-last weights are not what safetensors calls contiguous.
    tensors = {
        key: tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        for key, tensor in network.state_dict().items()
    }
    with replacing_file(path) as temporary:
        try:
            save_file(tensors, temporary, {_METADATA_KEY: record.model_dump_json()})
        except SafetensorError as error:
            raise unwritable(path, error) from error


def load_member(path: Path) -> Member:
    """Load a member; nothing in the file is executed, and nothing is downloaded.

    Raises:
        UserError: When the file is missing, damaged, or its tensors are not those of the
            network that its record describes.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            record = _parse_metadata(path, file.metadata())
            network = _build(path, record)
            keys = list(file.keys())
            _check_shapes(path, network, {key: file.get_slice(key).get_shape() for key in keys})
            network.load_state_dict({key: file.get_tensor(key) for key in keys})
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no readable member ({reason}); make it anew") from None
    return Member(network=network.eval(), record=record)


def read_member_record(path: Path) -> MemberRecord:
    """Read a member's record without its weights.

    Raises:
        UserError: When the file is missing or is no member.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return _parse_metadata(path, file.metadata())
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no readable member ({reason}); make it anew") from None


def _parse_metadata(path: Path, metadata: dict[str, str] | None) -> MemberRecord:
    try:
        values = json.loads((metadata or {})[_METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{path}: is no member of strokeseg, it holds no record") from None
    return parse_record(MemberRecord, values, str(path))


def _build(path: Path, record: MemberRecord) -> nn.Module:
    config = record.config
    try:
        return build_network(
            encoder=config.encoder,
            encoder_depth=config.encoder_depth,
            channels=len(record.channels),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _check_shapes(path: Path, network: nn.Module, given: Mapping[str, list[int]]) -> None:
    """Compare names and shapes before any tensor is read."""
    expected = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    wrong = sorted(
        key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key)
    )
    if wrong:
        key = wrong[0]
        raise UserError(
            f"{path}: must hold the network of its record, but {key} should have shape "
            f"{expected.get(key, 'none')}, got {given.get(key, 'none')} "
            f"({len(wrong)} tensors differ); make it anew"
        )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training's state: plain values and tensors, whole or not at all.

    Raises:
        UserError: When the file cannot be written.
    """
    with replacing_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # So torch reports a disk that fills up.
            raise unwritable(path, error) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        UserError: When the file is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: is no readable state of a training ({type(error).__name__}); "
            "delete it to start the trial anew"
        ) from None
    return state
