"""Splits: which patients train, which validate, which test.

A *subset* is one part of the split: a *fold*, numbered from 0, or the *test* set, which
nothing but the final evaluation may see. All cases of a patient are in one subset, since a
network that has seen a patient once recognises them again.

A split is decided once, written to a file with the hash of its content, and never drawn
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from strokeseg.errors import UserError, shown
from strokeseg.imaging.cases import TEST, is_subset_name
from strokeseg.storage.files import read_json, values_sha256, write_json

# What an ensemble is scored on: the locked patients, or those of the fold that chose the trials.
SUBSETS = (TEST, "validation")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Patients by subset.

    Attributes:
        folds: The patients of each fold, in order of their names.
        test: The patients of the test set, in order of their names; may be empty.
        seed: Seed of the draw; 0 when nothing was drawn.
    """

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...]
    seed: int

    @property
    def hash(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return values_sha256(_content(self))

    def subset(self, patient: str) -> str:
        """The fold ("0", "1", ...) or "test" of a patient.

        Raises:
            UserError: When the patient is in no subset.
        """
        for name, patients in _subsets(self).items():
            if patient in patients:
                return name
        raise UserError(
            f"patient {shown(repr(patient))} is in no fold and not in the test set; the "
            "splits were decided without this patient: choose another experiment name to decide "
            "them again"
        )


def draw_splits(
    lesion_ml: Mapping[str, float],
    *,
    folds: int,
    test_patients: tuple[str, ...] | None,
    test_share: float,
    seed: int,
) -> Splits:
    """Draw a test set and folds that resemble each other in lesion volume.

    Patients stand in line by lesion volume, ties in random order. One of each stretch of
    the line goes to the test set, at random; of the rest, every next `folds` patients go
    to different folds, at random. So each fold gets its share of small lesions, of large
    ones, and of patients without any, and fold sizes differ by one at most.

    Args:
        lesion_ml: Lesion volume of every patient in ml, all of their cases together.
        test_patients: The test set by name, or None to draw it.
        test_share: Share of the patients to draw for the test set, 0 to below 1; at least
            one patient unless it is 0.
        seed: Equal seeds and volumes give equal splits.

    Raises:
        UserError: When the test set names unknown patients or one twice, or when fewer
            patients than folds are left.
    """
    generator = np.random.default_rng(seed)
    line = [str(name) for name in generator.permutation(sorted(lesion_ml))]
    line.sort(key=lambda patient: lesion_ml[patient])
    if test_patients is not None:
        _check_test_patients(test_patients, lesion_ml)
        test = set(test_patients)
    else:
        count = max(1, round(test_share * len(line))) if test_share > 0 else 0
        stretches = np.array_split(np.arange(len(line)), count) if count else []
        test = {line[generator.choice(stretch)] for stretch in stretches if len(stretch)}
    rest = [patient for patient in line if patient not in test]
    if len(rest) < folds:
        raise UserError(
            f"{folds} folds need as many patients, got {len(rest)} besides the {len(test)} of the "
            "test set; lower splits.folds or splits.test_share, or add patients"
        )
    members: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(rest), folds):
        # zip stops at the last, shorter block: a random few of the folds get one more.
        for patient, fold in zip(
            rest[start : start + folds], generator.permutation(folds), strict=False
        ):
            members[fold].append(patient)
    splits = _make_splits(members, test, seed)
    check_splits(splits)
    return splits


def given_splits(folds: Mapping[str, set[str]]) -> Splits:
    """Take the splits that the data came with.

    Args:
        folds: For every patient the subsets that their cases name: "0", "1", ... or "test".

    Raises:
        UserError: When a patient is in two subsets, a name is no subset, or the folds are not
            numbered from 0 without a gap, at least two of them. With every fault at once.
    """
    faults = [
        f"patient {patient!r} is in {len(subsets)} subsets ({', '.join(sorted(subsets))})"
        for patient, subsets in folds.items()
        if len(subsets) != 1
    ]
    names = set().union(*folds.values())
    wrong = sorted(name for name in names - {TEST} if not is_subset_name(name))
    if wrong:
        faults.append(f"{wrong} are neither fold numbers nor {TEST!r}")
    numbers = sorted(int(name) for name in names - {TEST} - set(wrong))
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        faults.append(f"folds must be 0, 1, ... without a gap, two or more, got {numbers}")
    if faults:
        raise UserError(f"{'; '.join(faults)}; correct the manifest's column fold")
    by_subset: dict[str, list[str]] = {name: [] for name in names}
    for patient, subsets in folds.items():
        by_subset[next(iter(subsets))].append(patient)
    splits = _make_splits(
        [by_subset[str(number)] for number in numbers], by_subset.get(TEST, []), seed=0
    )
    check_splits(splits)
    return splits


def check_splits(splits: Splits) -> None:
    """Make sure that no patient is in two subsets and no fold is empty.

    Raises:
        UserError: Naming every patient and every fold at fault.
    """
    faults = []
    counts = Counter(patient for patients in _subsets(splits).values() for patient in patients)
    if repeated := sorted(patient for patient, count in counts.items() if count > 1):
        faults.append(f"patients must be in one subset only, {repeated} are in several or twice")
    if empty := [number for number, patients in enumerate(splits.folds) if not patients]:
        faults.append(f"every fold must have a patient, {empty} have none")
    if len(splits.folds) < 2:
        faults.append(f"there must be two folds or more, got {len(splits.folds)}")
    if faults:
        raise UserError(f"splits: {'; '.join(faults)}")


def write_splits(path: Path, splits: Splits) -> None:
    """Write splits as JSON with the hash of their content.

    Raises:
        UserError: When the file cannot be written.
    """
    write_json(path, {**_content(splits), "hash": splits.hash})


def read_splits(path: Path) -> Splits:
    """Read what `write_splits` wrote.

    Raises:
        UserError: When the file is missing or no such file, or when its content is not
            what was written: splits that change under a search make its scores void.
    """
    values = read_json(path)
    try:
        splits = Splits(
            folds=tuple(tuple(_names(fold)) for fold in values["folds"]),
            test=tuple(_names(values["test"])),
            seed=int(values["seed"]),
        )
        written_hash = values["hash"]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: must hold folds, test, seed and hash as prepare writes them; run prepare "
            "again with another experiment name"
        ) from None
    if splits.hash != written_hash:
        raise UserError(
            f"{path}: was changed after it was written (its hash does not fit its content); "
            "restore it, or decide new splits under another experiment name"
        )
    check_splits(splits)
    return splits


def _content(splits: Splits) -> dict[str, Any]:
    return {
        "folds": [list(patients) for patients in splits.folds],
        "test": list(splits.test),
        "seed": splits.seed,
    }


def _subsets(splits: Splits) -> dict[str, tuple[str, ...]]:
    return {**{str(n): fold for n, fold in enumerate(splits.folds)}, TEST: splits.test}


def _make_splits(folds: list[list[str]], test: Iterable[str], seed: int) -> Splits:
    return Splits(
        folds=tuple(tuple(sorted(fold)) for fold in folds), test=tuple(sorted(test)), seed=seed
    )


def _names(values: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("patients must be a list of names")
    return values


def _check_test_patients(test_patients: tuple[str, ...], known: Mapping[str, float]) -> None:
    if unknown := [patient for patient in test_patients if patient not in known]:
        raise UserError(
            f"splits.test_patients must name patients of the data, {unknown} are none; "
            f"there are {sorted(known)}"
        )
    if len(set(test_patients)) < len(test_patients):
        raise UserError(f"splits.test_patients names a patient twice: {list(test_patients)}")
