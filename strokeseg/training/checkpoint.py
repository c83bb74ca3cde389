"""A trained network on disk.

A *member* is one trial's best network, a candidate for the ensemble: a single safetensors
file whose metadata holds the *record* of what made it, enough to build the network again
without any download. A *state* is what an interrupted training goes on from; it is for
this machine only and never part of an ensemble.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from strokeseg.errors import UserError
from strokeseg.records.member import METADATA_KEY, MemberRecord, parse_member_record
from strokeseg.storage.files import replacing_file, unwritable
from strokeseg.training.network import build_network


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
            save_file(tensors, temporary, {METADATA_KEY: record.model_dump_json()})
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
            record = parse_member_record(path, file.metadata() or {})
            network = _build(path, record)
            keys = list(file.keys())
            _check_shapes(path, network, {key: file.get_slice(key).get_shape() for key in keys})
            network.load_state_dict({key: file.get_tensor(key) for key in keys})
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is no readable member ({reason}); make it again") from None
    return Member(network=network.eval(), record=record)


def _build(path: Path, record: MemberRecord) -> nn.Module:
    try:
        return build_network(record.config, channels=len(record.channels))
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
            f"({len(wrong)} tensors differ); make it again"
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
            "delete it to start the trial from scratch"
        ) from None
    return state
