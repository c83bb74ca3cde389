"""What all cases decide together: their voxel size, slice size and splits, and no leak."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strokeseg.config import ExperimentConfig
from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.prepared import SPACING_TOLERANCE
from strokeseg.imaging.similarity import SAME_SCAN_FROM, blocks_of_similarities
from strokeseg.imaging.slices import slice_size
from strokeseg.imaging.splits import Splits, draw_splits, given_splits
from strokeseg.preparation.record import Measured, Resemblance, Spacing, files_of

_LEAKS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class LeakAudit:
    """What comparing all cases of different patients found.

    Attributes:
        cases: Number of cases.
        nearest: For every case the one of another patient that resembles it most, in the
            order of the cases; none for a case that all others may resemble.
        leaks: Pairs that are one scan under two names, the most similar first.
        distinct_pairs: Number of pairs of patients that were not compared, since they are
            known to be different people.
    """

    cases: int
    nearest: tuple[Resemblance, ...]
    leaks: tuple[Resemblance, ...]
    distinct_pairs: int

    def __str__(self) -> str:
        """The audit in one line."""
        line = f"Leak audit: {self.cases} cases compared"
        if self.nearest:
            pair = max(self.nearest, key=lambda found: found.similarity)
            line += (
                f", nearest pair {pair.case.name} and {pair.other.name}, similarity "
                f"{pair.similarity:.2f} in {pair.sequence} (refused from {SAME_SCAN_FROM:g})"
            )
        if self.distinct_pairs:
            line += f", pairs of splits.distinct_patients aside: {self.distinct_pairs}"
        return line


def check_distinct_patients(config: ExperimentConfig, found: Sequence[Case]) -> None:
    """Make sure that the patients known to be distinct are patients of the data.

    Raises:
        UserError: Naming those who are not.
    """
    known = {case.patient for case in found}
    named = {patient for pair in config.splits.distinct_patients for patient in pair}
    if unknown := sorted(named - known):
        raise UserError(
            f"splits.distinct_patients must name patients of the data, {unknown} are none; "
            f"there are {sorted(known)}"
        )


def audit_leaks(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured]
) -> LeakAudit:
    """Compare the images of all cases of different patients, sequence by sequence.

    One sequence is enough for a leak: its file may have been exchanged between two cases.
    """
    sequences = config.data.sequences
    nearest = _Nearest(len(cases))
    pairs: dict[tuple[int, int], tuple[float, int]] = {}
    allowance = _Allowance(config, cases)
    for channel in range(len(sequences)):
        descriptors = [found.descriptors[channel] for found in measured]
        for rows, columns, block in blocks_of_similarities(descriptors):
            block[allowance.covers(rows, columns)] = -np.inf
            nearest.take(rows, columns, block, channel)
            nearest.take(columns, rows, block.T, channel)
            for row, column in np.argwhere(block >= SAME_SCAN_FROM):
                pair = (rows.start + int(row), columns.start + int(column))
                similarity = float(block[row, column])
                # A block on the diagonal has each pair twice; equals go to the first sequence.
                if pair[0] < pair[1] and similarity > pairs.get(pair, (-np.inf, 0))[0]:
                    pairs[pair] = (similarity, channel)

    def resemblance(row: int, column: int, similarity: float, channel: int) -> Resemblance:
        return Resemblance(
            case=cases[row],
            other=cases[column],
            sequence=sequences[channel],
            similarity=similarity,
        )

    leaks = [resemblance(*pair, *found) for pair, found in sorted(pairs.items())]
    return LeakAudit(
        cases=len(cases),
        nearest=tuple(resemblance(*found) for found in nearest.found()),
        leaks=tuple(sorted(leaks, key=lambda leak: -leak.similarity)),
        distinct_pairs=len({frozenset(names) for names in config.splits.distinct_patients}),
    )


class _Nearest:
    """For each of some cases the one that resembles it most, the first of equal ones."""

    def __init__(self, count: int) -> None:
        self._similarities = np.full(count, -np.inf, dtype=np.float32)
        self._others = np.zeros(count, dtype=np.int64)
        self._channels = np.zeros(count, dtype=np.int64)

    def take(self, rows: slice, columns: slice, block: NDArray[np.float32], channel: int) -> None:
        """Take in the similarities of some cases to some others in one sequence."""
        places = block.argmax(axis=1)
        found = block[np.arange(len(block)), places]
        others = columns.start + places
        known = self._similarities[rows]
        nearer = (found > known) | ((found == known) & (others < self._others[rows]))
        self._similarities[rows] = np.where(nearer, found, known)
        self._others[rows] = np.where(nearer, others, self._others[rows])
        self._channels[rows] = np.where(nearer, channel, self._channels[rows])

    def found(self) -> list[tuple[int, int, float, int]]:
        """Return case, nearest, similarity and sequence, where there is any."""
        return [
            (row, int(self._others[row]), float(similarity), int(self._channels[row]))
            for row, similarity in enumerate(self._similarities)
            if np.isfinite(similarity)
        ]


class _Allowance:
    """Which pairs of cases may resemble each other.

    Those of one patient, and those of patients who are known to be different people.
    """

    def __init__(self, config: ExperimentConfig, cases: Sequence[Case]) -> None:
        places: dict[str, list[int]] = {}
        for place, case in enumerate(cases):
            places.setdefault(case.patient, []).append(place)
        numbers = {patient: number for number, patient in enumerate(places)}
        self._patients = np.array([numbers[case.patient] for case in cases])
        pairs = [
            pair
            for one, other in config.splits.distinct_patients
            for first in places.get(one, ())
            for second in places.get(other, ())
            for pair in ((first, second), (second, first))
        ]
        self._known = np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def covers(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return (rows, columns): whether the pair may resemble each other."""
        allowed = self._patients[rows, np.newaxis] == self._patients[columns]
        first, second = self._known.T
        inside = (first >= rows.start) & (first < rows.stop)
        inside &= (second >= columns.start) & (second < columns.stop)
        allowed[first[inside] - rows.start, second[inside] - columns.start] = True
        return np.asarray(allowed)


def refuse_resemblances(leaks: Sequence[Resemblance], table: Path) -> None:
    """Refuse nearly one scan under two patients' names.

    Args:
        leaks: Such pairs, the most similar first; may be none.
        table: The file that tells how similar all cases are.

    Raises:
        UserError: With the most similar pairs.
    """
    if not leaks:
        return
    shown = leaks[:_LEAKS_SHOWN]
    told = [
        f"cases {leak.case.name} and {leak.other.name} are nearly the same "
        f"(similarity {leak.similarity:.2f} in {leak.sequence}, refused from {SAME_SCAN_FROM:g})"
        for leak in shown
    ]
    if more := len(leaks) - len(shown):
        told.append(f"and {more} pairs more")
    pairs = json.dumps([[leak.case.patient, leak.other.patient] for leak in shown])
    raise UserError(
        f"different patients must have different scans, but {'; '.join(told)}; name one patient "
        "for both in the column patient of a manifest, or remove one, or, if they are known to "
        f"be different people, set splits.distinct_patients: {pairs} (all cases in {table})"
    )


def refuse_leaks(cases: Sequence[Case], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse one scan under two patients' names: it could stand on two sides of the split.

    Raises:
        UserError: With every such pair.
    """
    patients = {case.name: case.patient for case in cases}
    seen: dict[str, str] = {}
    leaks = []
    for key in files_of(cases):
        name, kind = key.rsplit("/", 1)
        first = seen.setdefault(files[key]["sha256"], name)
        # Masks of two lesion-free patients may well be equal.
        if kind != "mask" and patients[first] != patients[name]:
            leaks.append(f"{kind} of cases {first} and {name} is the same file content")
    if leaks:
        raise UserError(
            f"different patients must have different scans, but {'; '.join(leaks)}; name one "
            "patient for both, or remove one"
        )


def common_spacing(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured]
) -> Spacing:
    """Return the experiment's voxel size, or the one that all cases have.

    Raises:
        UserError: When they have different ones.
    """
    if config.preparation.spacing_mm is not None:
        return config.preparation.spacing_mm
    spacings = np.array([found.spacing_mm for found in measured])
    common = np.median(spacings, axis=0)
    odd = np.abs(spacings / common - 1).max(axis=1) > SPACING_TOLERANCE
    if odd.any():
        strange = int(np.flatnonzero(odd)[0])
        raise UserError(
            f"all cases must have one voxel size, but case {cases[strange].name} has "
            f"{_by(spacings[strange])} mm where most have {_by(common)} mm; "
            "set preparation.spacing_mm to resample them"
        )
    x, y, z = (round(float(side), 4) for side in common)
    return x, y, z


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def decide_splits(
    config: ExperimentConfig,
    found: Sequence[Case],
    cases: Sequence[Case],
    measured: Sequence[Measured],
) -> Splits:
    """Take the splits of the manifest's fold column, or draw them where there is none.

    Args:
        config: The experiment's.
        found: All cases, the invalid ones as well.
        cases: The valid cases.
        measured: What was measured of them.

    Raises:
        UserError: When they cannot be split as the configuration asks.
    """
    wanted = config.splits.test_patients
    missing = {case.patient for case in found} - {case.patient for case in cases}
    if wanted is not None and (lost := sorted(missing.intersection(wanted))):
        raise UserError(
            f"patients {', '.join(lost)} of splits.test_patients have no valid case; mend it, or "
            "take them out of the list"
        )
    if any(case.fold is not None for case in cases):
        sides: dict[str, set[str]] = {}
        for case in cases:
            sides.setdefault(case.patient, set()).add(case.fold or "")
        splits = given_splits(sides)
        if wanted is not None and set(wanted) != set(splits.test):
            raise UserError(
                f"splits.test_patients is {sorted(wanted)}, but the manifest's fold column says "
                f"{sorted(splits.test)}; remove one of them"
            )
    else:
        lesion_ml: dict[str, float] = {}
        for case, facts in zip(cases, measured, strict=True):
            lesion_ml[case.patient] = lesion_ml.get(case.patient, 0.0) + facts.lesion_ml
        splits = draw_splits(
            lesion_ml,
            folds=config.splits.folds,
            test_patients=config.splits.test_patients,
            test_share=config.splits.test_share,
            seed=config.splits.seed,
        )
    if config.splits.validation_fold >= len(splits.folds):
        raise UserError(
            f"splits.validation_fold is {config.splits.validation_fold}, but the folds are 0 to "
            f"{len(splits.folds) - 1} only"
        )
    return splits


def common_size(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured], axis: str
) -> tuple[int, int]:
    """Return the experiment's slice size, or the smallest that holds every case.

    Raises:
        UserError: When the experiment's is too small for a case.
    """
    needed = [slice_size(found.shape, axis) for found in measured]
    largest = (max(height for height, _ in needed), max(width for _, width in needed))
    given = config.preparation.slice_size
    if given is None:
        return largest
    for case, (height, width) in zip(cases, needed, strict=True):
        if height > given[0] or width > given[1]:
            raise UserError(
                f"preparation.slice_size is {given[0]} x {given[1]}, but the {axis} slices of case "
                f"{case.name} need {height} x {width}; set at least {largest[0]} x {largest[1]}, "
                "or leave it out"
            )
    return given
