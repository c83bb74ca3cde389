"""The leak audit: no scan stands under two patients' names.

A *leak* is one scan under two names, which the split may put in both subsets: the same file, or
nearly the same image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.preparation.similarity import SAME_SCAN_FROM, blocks_of_similarities
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.preparation import Measured, Resemblance, files_of

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
    pairs = [
        f"cases {leak.case.name} and {leak.other.name} are nearly the same "
        f"(similarity {leak.similarity:.2f} in {leak.sequence}, refused from {SAME_SCAN_FROM:g})"
        for leak in shown
    ]
    if more := len(leaks) - len(shown):
        pairs.append(f"and {more} pairs more")
    distinct = json.dumps([[leak.case.patient, leak.other.patient] for leak in shown])
    raise UserError(
        f"different patients must have different scans, but {'; '.join(pairs)}; name one patient "
        "for both in the column patient of a manifest, or remove one, or, if they are known to "
        f"be different people, set splits.distinct_patients: {distinct} (all cases in {table})"
    )


def refuse_leaks(cases: Sequence[Case], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse one scan under two patients' names: it could stand in two subsets of the split.

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
