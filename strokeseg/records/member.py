"""What made a member, as every file that holds one tells: safetensors and ONNX.

The record stands under one key of the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.slices import AxisName
from strokeseg.records.config import Sequences, SliceSize, SpacingMm, TrialConfig
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.record import Record, parse_record

METADATA_KEY = "strokeseg"


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
            None when they kept their own.
        slice_size: Height and width of the slices in training, multiples of 32.
        weights_source: Where the encoder's first weights came from; None for random.
        preparation_hash: Of the prepared data.
        code_version: Of strokeseg.
    """

    axis: AxisName
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


def parse_member_record(path: Path, metadata: Mapping[str, str]) -> MemberRecord:
    """Return the record in a file's metadata.

    Raises:
        UserError: When there is none, or any value in it is wrong.
    """
    try:
        values = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{path}: is no member of strokeseg, it holds no record") from None
    return parse_record(MemberRecord, values, str(path))


def check_fits(path: Path, member: MemberRecord, ensemble: EnsembleRecord, axis: str) -> None:
    """Check that a member was trained for its place in an ensemble.

    Raises:
        UserError: When it was made for another axis, other sequences or another spacing.
    """
    expected = (axis, ensemble.sequences, ensemble.spacing_mm)
    given = (member.axis, member.channels, member.spacing_mm)
    if given != expected:
        raise UserError(
            f"{path}: must be a member for axis, sequences and spacing {expected}, got {given}; "
            "make the ensemble again"
        )
