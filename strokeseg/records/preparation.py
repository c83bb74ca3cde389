"""What `prepared/` holds: its records, and what has changed since they were written.

The *preparation* of an experiment is that folder, complete or not there. Its *fingerprint*
is the hash of all that the slices depend on: the settings, the bytes of every file, the
splits. Searches keep it, so that no scores are compared across different data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from strokeseg.errors import UserError, shown
from strokeseg.imaging.cases import Case, is_case_name
from strokeseg.imaging.slices import SCHEMA_VERSION
from strokeseg.records.config import ExperimentConfig, Positive
from strokeseg.records.experiment import Experiment
from strokeseg.records.record import parse_values
from strokeseg.records.splits import Splits, read_splits
from strokeseg.storage.files import converts_errors, file_sha256, read_csv, read_json, write_csv

Spacing = tuple[float, float, float]
_REMEDY = "remove the folder prepared/ and run prepare again, searches go on with what they have"


class FileFacts(TypedDict):
    """By what a file is recognised."""

    bytes: int
    modified_ns: int
    sha256: str


class _Facts(TypedDict):
    """What `preparation.json` says, as far as it is read again."""

    fingerprint: str
    schema_version: str
    settings: dict[str, dict[str, Any]]
    spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    files: dict[str, FileFacts]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What `prepared/` holds.

    Attributes:
        cases: The cases by name, each with the subset of its patient as its `fold`.
        lesion_ml: Volume of each case's lesion.
        spacing_mm: Voxel size (x, y, z) of the prepared cases, in RAS+ order.
        fingerprint: Hash of all that the slices depend on.
        splits_hash: Hash of the splits.
    """

    cases: Mapping[str, Case]
    lesion_ml: Mapping[str, float]
    spacing_mm: Spacing
    fingerprint: str
    splits_hash: str

    def names(self, *subsets: str) -> tuple[str, ...]:
        """Names of the cases of some subsets of the split."""
        return tuple(name for name, case in self.cases.items() if case.fold in subsets)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the check of one case found; `faults` is empty for a valid one.

    Attributes:
        faults: Why the case is invalid.
        shape: Voxels of the brain's box along X, Y, Z.
        spacing_mm: Voxel size (x, y, z) in RAS+ order.
        lesion_voxels: Of the mask as it came.
        lesion_ml: Its volume.
        descriptors: One for every sequence, in their order; see `imaging.similarity`.
    """

    faults: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: Spacing = (0.0, 0.0, 0.0)
    lesion_voxels: int = 0
    lesion_ml: float = 0.0
    descriptors: tuple[NDArray[np.int8], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Resemblance:
    """Two cases of different patients.

    Attributes:
        case: One of them.
        other: The other.
        sequence: The sequence in which they resemble each other most.
        similarity: How much, -1 to 1; see `imaging.similarity`.
    """

    case: Case
    other: Case
    sequence: str
    similarity: float


def read_preparation(experiment: Experiment) -> Preparation:
    """Read what `prepare` wrote.

    Raises:
        UserError: When the experiment is not prepared, was prepared with other settings or
            another version, or its splits were edited.
    """
    if not experiment.preparation_json.exists():
        raise UserError(
            f"{experiment.prepared_folder}: nothing is prepared; "
            f"run strokeseg prepare --experiment {experiment.name} first"
        )
    facts = _read_facts(experiment)
    if changes := _changed_settings(experiment, facts):
        raise changed(experiment, changes)
    splits = read_splits(experiment.splits_json)
    sequences = experiment.config.data.sequences
    with converts_errors(experiment.cases_csv, "table of cases", _REMEDY):
        rows = read_csv(experiment.cases_csv)
        cases = {
            row["case"]: Case(
                name=row["case"],
                patient=row["patient"],
                images={sequence: Path(row[sequence]) for sequence in sequences},
                mask=Path(row["mask"]),
                fold=_subset(experiment, splits, row["patient"]),
            )
            for row in rows
        }
        lesion_ml = {row["case"]: float(row["lesion_ml"]) for row in rows}
        _check_cases(cases, lesion_ml, facts)
    x, y, z = facts["spacing_mm"]
    return Preparation(
        cases=cases,
        lesion_ml=lesion_ml,
        spacing_mm=(x, y, z),
        fingerprint=facts["fingerprint"],
        splits_hash=splits.hash,
    )


def _subset(experiment: Experiment, splits: Splits, patient: str) -> str:
    try:
        return splits.subset(patient)
    except UserError as error:
        raise UserError(f"{experiment.cases_csv}: {error}") from None


def _check_cases(cases: Mapping[str, Case], lesion_ml: Mapping[str, float], facts: _Facts) -> None:
    """Check that the table has the cases that were prepared.

    Raises:
        ValueError: When it has others.
    """
    strange = [name for name in cases if f"{name}/mask" not in facts["files"]]
    if strange or not cases or not all(is_case_name(name) for name in cases):
        raise ValueError(f"the prepared cases are others than {', '.join(cases) or 'none'}")
    if wrong := [name for name, volume in lesion_ml.items() if not 0 <= volume < np.inf]:
        raise ValueError(f"the lesion of case {wrong[0]} has no volume")


def _read_facts(experiment: Experiment) -> _Facts:
    path = experiment.preparation_json
    values = read_json(path)
    # Another version may say other things.
    if isinstance(values, dict) and values.get("schema_version") != SCHEMA_VERSION:
        was = shown(repr(values.get("schema_version")))
        raise changed(experiment, [f"schema was {was}, now {SCHEMA_VERSION}"])
    facts: _Facts = parse_values(_Facts, values, str(path), _REMEDY)
    return facts


def prepared_files(experiment: Experiment) -> Mapping[str, FileFacts]:
    """Return what is known of the files of all cases, keyed by `<case>/<sequence>`.

    Raises:
        UserError: As `read_preparation` does.
    """
    return _read_facts(experiment)["files"]


def is_prepared(experiment: Experiment) -> bool:
    """Whether a complete preparation is there."""
    return experiment.preparation_json.exists()


def write_validation(path: Path, cases: Sequence[Case], measured: Sequence[Measured]) -> None:
    """Write a row a case that was found: whether it is valid, what was measured, and why not."""
    rows = [
        {
            "case": case.name,
            "patient": case.patient,
            "valid": "no" if found.faults else "yes",
            "brain_shape": None if found.faults else "x".join(map(str, found.shape)),
            "spacing_mm": None if found.faults else "x".join(f"{s:g}" for s in found.spacing_mm),
            "lesion_voxels": None if found.faults else found.lesion_voxels,
            "lesion_ml": None if found.faults else f"{found.lesion_ml:.3f}",
            "faults": found.faults,
        }
        for case, found in zip(cases, measured, strict=True)
    ]
    write_csv(path, list(rows[0]), rows)


def write_cases(
    path: Path,
    config: ExperimentConfig,
    cases: Sequence[Case],
    splits: Splits,
    measured: Sequence[Measured],
) -> None:
    """Write a row a valid case: its patient, subset, lesion volume and files."""
    rows = [
        {
            "case": case.name,
            "patient": case.patient,
            "subset": splits.subset(case.patient),
            "lesion_ml": f"{found.lesion_ml:.3f}",
            **{sequence: str(case.images[sequence].absolute()) for sequence in case.images},
            "mask": str(case.mask.absolute()) if case.mask else "",
        }
        for case, found in zip(cases, measured, strict=True)
    ]
    columns = ["case", "patient", "subset", "lesion_ml", *config.data.sequences, "mask"]
    write_csv(path, columns, rows)


def write_similarity(path: Path, nearest: Sequence[Resemblance]) -> None:
    """Write a row a case: the case of another patient that resembles it most."""
    columns = ["case", "patient", "nearest_case", "nearest_patient", "sequence", "similarity"]
    rows = [
        {
            "case": found.case.name,
            "patient": found.case.patient,
            "nearest_case": found.other.name,
            "nearest_patient": found.other.patient,
            "sequence": found.sequence,
            "similarity": f"{found.similarity:.3f}",
        }
        for found in nearest
    ]
    write_csv(path, columns, rows)


def refresh_paths(experiment: Experiment, cases: Sequence[Case]) -> None:
    """Write where the cases are now, when the same files have moved to another place."""
    rows = read_csv(experiment.cases_csv)
    files = {key: str(path.absolute()) for key, path in files_of(cases).items()}
    moved = [
        {column: files.get(f"{row['case']}/{column}", cell) for column, cell in row.items()}
        for row in rows
    ]
    if moved != rows:
        write_csv(experiment.cases_csv, list(rows[0]), moved)


def settings_of(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that slices depend on, as plain values; where files lie left out."""
    # Which patients are known to be distinct decides whether there are slices, not what is in
    # them: naming a pair afterwards must not make searches start from scratch.
    apart = {"validation_fold", "distinct_patients"}
    return {
        "data": config.data.model_dump(mode="json", exclude={"path", "layout", "simulated"}),
        "splits": config.splits.model_dump(mode="json", exclude=apart),
        "preparation": config.preparation.model_dump(mode="json"),
    }


def files_of(cases: Sequence[Case]) -> dict[str, Path]:
    """Return the files of the cases that are there, keyed by `<case>/<sequence>`."""
    files = {}
    for case in cases:
        files.update({f"{case.name}/{sequence}": path for sequence, path in case.images.items()})
        if case.mask is not None:
            files[f"{case.name}/mask"] = case.mask
    return {key: path for key, path in files.items() if path.is_file()}


def file_facts(path: Path) -> FileFacts:
    """Return the size, time and hash by which a file is recognised."""
    status = path.stat()
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "sha256": file_sha256(path),
    }


def changes_since(experiment: Experiment, cases: Sequence[Case]) -> list[str]:
    """Return what differs from the preparation that is there; files are compared by content."""
    before = _read_facts(experiment)
    changes = _changed_settings(experiment, before)
    files = files_of(cases)
    known = before["files"]
    changes += [f"{key} is gone" for key in known if key not in files]
    changes += [f"{key} is new" for key in files if key not in known]
    changes += [
        f"{key} has other content"
        for key, path in files.items()
        if key in known and _is_other(path, known[key])
    ]
    return changes + _changed_patients(experiment, cases)


def _changed_patients(experiment: Experiment, cases: Sequence[Case]) -> list[str]:
    """Tell of cases that are given to another patient or subset than in the table."""
    with converts_errors(experiment.cases_csv, "table of cases", _REMEDY):
        rows = read_csv(experiment.cases_csv)
        known = {row["case"]: (row["patient"], row["subset"]) for row in rows}
    changes = []
    for case in cases:
        patient, subset = known.get(case.name, (case.patient, case.fold))
        if case.patient != patient:
            was, now = shown(patient), shown(case.patient)
            changes.append(f"case {case.name} was of patient {was}, now of {now}")
        elif case.fold is not None and case.fold != subset:
            changes.append(f"case {case.name} was in subset {shown(subset)}, now in {case.fold}")
    return changes


def changed_files(experiment: Experiment, case: Case) -> list[str]:
    """Return the files of a case that have other content than when it was prepared."""
    known = prepared_files(experiment)
    return [
        str(path)
        for key, path in files_of([case]).items()
        if key not in known or _is_other(path, known[key])
    ]


def changed(experiment: Experiment, changes: Sequence[str]) -> UserError:
    """Say what has changed since an experiment was prepared, and what to do."""
    return UserError(
        f"{experiment.prepared_folder}: prepared before, and since then changed: "
        f"{'; '.join(changes)}. Choose another experiment name, or prepare and split again with "
        f"strokeseg prepare --experiment {experiment.name} --overwrite (what was searched and "
        "scored before then no longer applies)"
    )


def _changed_settings(experiment: Experiment, before: _Facts) -> list[str]:
    return [
        f"{part}.{key} was {shown(repr(before['settings'].get(part, {}).get(key)))}, now {value!r}"
        for part, values in settings_of(experiment.config).items()
        for key, value in values.items()
        if before["settings"].get(part, {}).get(key) != value
    ]


def _is_other(path: Path, facts: FileFacts) -> bool:
    status = path.stat()
    if status.st_size != facts["bytes"]:
        return True
    # Only a file that was touched is worth reading again.
    touched = bool(status.st_mtime_ns != facts["modified_ns"])
    return touched and file_sha256(path) != facts["sha256"]
