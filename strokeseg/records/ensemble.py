"""What an ensemble is made of, as its record says.

An *ensemble* is a folder: `ensemble.json`, its record, and `members/`, one file a member. Its
*rule* says how the members' probabilities become one mask; `imaging.voting` defines the words.
*Comparisons* are other sets of members in the same folder, kept for evaluation only.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from strokeseg.errors import UserError
from strokeseg.imaging.slices import AxisName
from strokeseg.imaging.voting import Ballot
from strokeseg.records.config import NotNegative, Sequences, SpacingMm
from strokeseg.records.record import Record, parse_record
from strokeseg.storage.files import file_sha256, read_json, replacing_folder, write_json

RECORD_NAME = "ensemble.json"
MEMBERS_FOLDER = "members"

_FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")]
_FileNames: TypeAlias = Annotated[tuple[_FileName, ...], Field(min_length=1, max_length=100)]
MemberNames: TypeAlias = Annotated[dict[AxisName, _FileNames], Field(min_length=1)]
_Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Rule(Record):
    """How probabilities become one mask.

    Attributes:
        within: How the members of one axis decide together: by the `mean` of their
            probabilities, or by `vote`, each with a mask of its own.
        between: How the axes do: `hard` by the majority of their masks, `soft` by the mean of
            their probabilities.
        threshold: Probability from which a voxel is lesion.
        smallest_lesion_mm3: Lesions below this volume are dropped; 0 keeps all.
    """

    within: Literal["mean", "vote"] = "mean"
    between: Literal["hard", "soft"] = "hard"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    smallest_lesion_mm3: NotNegative = 0.0

    def in_words(self) -> str:
        """Say how the ensemble votes."""
        axes = (
            "majority of the axes, a tie being lesion-free"
            if self.between == "hard"
            else "mean probability of the axes"
        )
        words = [
            f"{axes}, lesion from probability {self.threshold:g}",
            "members of an axis vote among themselves"
            if self.within == "vote"
            else "members of an axis by their mean",
        ]
        if self.smallest_lesion_mm3 > 0:
            words.append(f"lesions below {self.smallest_lesion_mm3:g} mm³ dropped")
        return "; ".join(words)

    def ballot(self) -> Ballot:
        """A ballot of one case by this rule."""
        return Ballot(
            within=self.within,
            between=self.between,
            threshold=self.threshold,
            smallest_lesion_mm3=self.smallest_lesion_mm3,
        )


class EnsembleRecord(Record):
    """What an ensemble is made of.

    Attributes:
        name: The experiment's name.
        sequences: Sequences in the order of the networks' channels.
        spacing_mm: Voxel size (x, y, z) that cases are resampled to, 0.1 to 20; None
            when they keep their own.
        reference: Sequence onto whose grid the others are resampled; None to insist
            that they share one.
        rule: How the members' probabilities become one mask.
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
    rule: Rule = Rule()
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


def write_ensemble(
    folder: Path,
    record: EnsembleRecord,
    member_files: Mapping[str, Path],
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Copy members and write their record and hashes, whole or not at all.

    Args:
        folder: The ensemble's folder; replaced when it is there.
        record: Its record; the hashes in it are those of the copies, whatever is given.
        member_files: Where the files that the record names are now.
        notes: Plain values to keep beside the record as JSON, by file name.

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
        for name, values in notes.items():
            write_json(temporary / name, values)
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
