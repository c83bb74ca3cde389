"""Members, and how they vote.

An *ensemble* is a folder: `ensemble.json`, its record, and `members/`, one file a member.
The members of one axis average their probabilities and, with a threshold, make one mask
together. The axes then *vote*: a voxel is lesion where more than half of the axes say so.
*Comparisons* are other sets of members in the same folder, kept for evaluation only.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from strokeseg.config import Record, Sequences, SpacingMm, parse_record
from strokeseg.errors import UserError
from strokeseg.files import file_sha256, read_json, replacing_folder, write_json
from strokeseg.imaging.prepared import PreparedCase
from strokeseg.learning.checkpoint import Member, load_member
from strokeseg.learning.inference import predict_volume

VOTE = "vote"
RECORD_NAME = "ensemble.json"
MEMBERS_FOLDER = "members"

_Axis: TypeAlias = Literal["axial", "coronal", "sagittal"]
_FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")]
_FileNames: TypeAlias = Annotated[tuple[_FileName, ...], Field(min_length=1, max_length=100)]
MemberNames: TypeAlias = Annotated[dict[_Axis, _FileNames], Field(min_length=1)]
_Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EnsembleRecord(Record):
    """What an ensemble is made of.

    Attributes:
        name: The experiment's name.
        sequences: Sequences in the order of the networks' channels.
        spacing_mm: Voxel size (x, y, z) that cases are resampled to, 0.1 to 20; nothing
            when they keep their own.
        reference: Sequence onto whose grid the others are resampled; nothing to insist
            that they share one.
        threshold: Probability from which an axis votes for lesion.
        members: File names by axis. Fewer than three axes are permitted; of two, both
            must agree.
        comparison: By name of the comparison, file names by axis.
        sha256: Of the files, by name; `write_ensemble` fills it in.
        preparation_hash: Of the data that the members were trained on.
        code_version: Of strokeseg.
    """

    name: str
    sequences: Sequences
    spacing_mm: SpacingMm | None = None
    reference: str | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    members: MemberNames
    comparison: dict[str, MemberNames] = {}
    sha256: dict[_FileName, _Sha256] = {}
    preparation_hash: str
    code_version: str

    @model_validator(mode="after")
    def _reference_is_a_sequence(self) -> EnsembleRecord:
        if self.reference is not None and self.reference not in self.sequences:
            raise ValueError(
                f"reference must be one of {list(self.sequences)}, got {self.reference!r}"
            )
        return self

    def file_names(self) -> set[str]:
        """All member files, those of comparisons included."""
        sets = [self.members, *self.comparison.values()]
        return {name for by_axis in sets for names in by_axis.values() for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """Loaded members by axis, and their record."""

    members: Mapping[str, tuple[Member, ...]]
    record: EnsembleRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What an ensemble says of one case, on the case's native grid.

    Attributes:
        masks: By axis and under `vote`, uint8, 0 or 1.
        probabilities: By axis, float32, 0 to 1, the mean over the axis's members.
    """

    masks: dict[str, NDArray[np.uint8]]
    probabilities: dict[str, NDArray[np.float32]]


def write_ensemble(folder: Path, record: EnsembleRecord, member_files: Mapping[str, Path]) -> None:
    """Copy members and write their record and hashes, whole or not at all.

    Args:
        folder: The ensemble's folder; replaced when it is there.
        record: Its record; the hashes in it are those of the copies, whatever is given.
        member_files: Where the files that the record names are now.

    Raises:
        ValueError: When the record names other files than are given.
        UserError: When a file cannot be read or the folder cannot be written.
    """
    if record.file_names() != set(member_files):
        raise ValueError(
            f"an ensemble needs the files {sorted(record.file_names())}, got {sorted(member_files)}"
        )
    with replacing_folder(folder) as temporary:
        sha256 = {}
        for name, path in sorted(member_files.items()):
            copy = temporary / MEMBERS_FOLDER / name
            try:
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
                sha256[name] = file_sha256(copy)
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be copied to {folder} ({error.strerror})"
                ) from None
        record = record.model_copy(update={"sha256": sha256})
        write_json(temporary / RECORD_NAME, record.model_dump(mode="json"))


def read_ensemble_record(path: Path) -> EnsembleRecord:
    """Read the record of an ensemble from its JSON file.

    Raises:
        UserError: When it is missing or any value in it is wrong.
    """
    values: Any = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold an object, got {type(values).__name__}")
    return parse_record(EnsembleRecord, values, str(path))


def load_ensemble(folder: Path, comparison: str | None = None) -> Ensemble:
    """Load the members of an ensemble.

    Args:
        folder: The ensemble's folder.
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
        members=load_members(folder / MEMBERS_FOLDER, record, chosen),
        record=record,
    )


def load_members(
    folder: Path, record: EnsembleRecord, chosen: Mapping[Any, tuple[str, ...]]
) -> dict[str, tuple[Member, ...]]:
    """Load members by axis from the folder that holds their files.

    Raises:
        UserError: When a file is missing, damaged, not the one that was promoted, or does
            not fit the ensemble.
    """
    for names in chosen.values():
        for name in names:
            _check_unchanged(folder / name, record)
    members = {
        axis: tuple(load_member(folder / name) for name in names) for axis, names in chosen.items()
    }
    for axis, names in chosen.items():
        for name, member in zip(names, members[axis], strict=True):
            _check_fits(folder / name, member, record, axis)
    return members


def _check_unchanged(path: Path, record: EnsembleRecord) -> None:
    try:
        given = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: is no readable member ({error.strerror}); promote anew") from None
    if given != record.sha256.get(path.name):
        raise UserError(f"{path}: was changed after it was promoted; promote anew")


def _check_fits(path: Path, member: Member, record: EnsembleRecord, axis: str) -> None:
    expected = (axis, record.sequences, record.spacing_mm)
    given = (member.record.axis, member.record.channels, member.record.spacing_mm)
    if given != expected:
        raise UserError(
            f"{path}: must be a member for axis, sequences and spacing {expected}, got {given}; "
            "make the ensemble anew"
        )


def segment(
    ensemble: Ensemble, prepared: PreparedCase, device: torch.device | str = "cpu"
) -> Segmentation:
    """Find the lesion in one case.

    Args:
        ensemble: The members.
        prepared: The case, prepared with the ensemble's sequences and spacing.
        device: Where to compute.

    Raises:
        ValueError: When the case has another number of sequences, or a member's
            probabilities are not finite.
    """
    if len(prepared.images) != len(ensemble.record.sequences):
        raise ValueError(
            f"the case must have the sequences {ensemble.record.sequences}, "
            f"got {len(prepared.images)} channels"
        )
    probabilities: dict[str, NDArray[np.float32]] = {}
    for axis, members in ensemble.members.items():
        total = np.zeros(prepared.images.shape[1:], dtype=np.float32)
        for member in members:
            total += predict_volume(
                member.network,
                prepared.images,
                axis,
                slice_size=member.record.slice_size,
                device=device,
            )
        probabilities[axis] = prepared.restore(total / np.float32(len(members)))
    masks = {
        axis: (probability >= ensemble.record.threshold).astype(np.uint8)
        for axis, probability in probabilities.items()
    }
    return Segmentation(masks={**masks, VOTE: vote(masks)}, probabilities=probabilities)


def vote(masks: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return what more than half of the axes call lesion; a tie is lesion-free.

    Args:
        masks: By axis, one or more, uint8, 0 or 1, of one shape.

    Returns:
        The same shape, uint8, 0 or 1.

    Raises:
        ValueError: When there are no masks or their shapes differ.
    """
    shapes = sorted({mask.shape for mask in masks.values()})
    if len(shapes) != 1:
        raise ValueError(f"a vote needs masks of one shape, got {shapes or 'no masks'}")
    votes = np.sum([mask > 0 for mask in masks.values()], axis=0)
    return np.asarray(2 * votes > len(masks), dtype=np.uint8)
