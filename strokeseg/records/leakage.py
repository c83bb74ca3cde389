"""What a measurement of leakage found: its rows, their means, and the sentences they make.

A *run* is one configuration trained once, with its slices divided at one *level*, `slice`
or `patient` (see `leakage.divisions`). Its *scores* are the Dice that it would
have printed and that of the same weights on patients never seen; the *gap* is the first minus
the second. A *row* is one run with its scores, or with why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from strokeseg.records.config import Count, Share, TrialConfig
from strokeseg.records.record import Record
from strokeseg.storage.files import write_csv

LEVELS = ("slice", "patient")


class LeakageScores(Record):
    """What a finished run found.

    Attributes:
        printed_dice: Mean 3D Dice over the cases of its own validation slices.
        unseen_dice: Mean 3D Dice over the unseen cases.
        best_epoch: Epoch of the weights that both belong to, from 1.
        training_slices: Slices in the training subset.
        validation_slices: Slices in the validation subset.
        shared_cases: Cases with slices in both subsets.
        validation_cases: Cases with slices in the validation subset.
        lesion_free_cases: Those of them without a lesion in any of these slices, which
            score 1 when none is predicted there, else 0.
        seconds: Wall time of the run.
    """

    printed_dice: Share
    unseen_dice: Share
    best_epoch: Count
    training_slices: Count
    validation_slices: Count
    shared_cases: int
    validation_cases: Count
    lesion_free_cases: int
    seconds: float

    @property
    def gap(self) -> float:
        """Printed minus unseen."""
        return self.printed_dice - self.unseen_dice


@dataclass(frozen=True, kw_only=True)
class LeakageRow:
    """One run.

    Attributes:
        configuration: What its configuration is called, such as `trial 3 (best)`.
        level: `slice` or `patient`.
        seed: Seed of its division and its training.
        config: Its configuration.
        scores: What it scored; None when it did not finish.
        reason: Why it failed, if it did.
    """

    configuration: str
    level: str
    seed: int
    config: TrialConfig
    scores: LeakageScores | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over runs.

    Attributes:
        value: The mean.
        spread: The standard deviation, if there are two runs or more.
    """

    value: float
    spread: float | None

    def __str__(self) -> str:
        """As a table shows it."""
        return f"{self.value:.3f}" + ("" if self.spread is None else f" ± {self.spread:.3f}")


@dataclass(frozen=True, kw_only=True)
class LeakageMeans:
    """The finished runs of one configuration at one level, over all seeds.

    Attributes:
        configuration: As in the rows.
        level: As in the rows.
        runs: How many finished, one or more.
        printed: Their printed scores.
        unseen: Their scores on unseen patients.
        gap: Printed minus unseen.
    """

    configuration: str
    level: str
    runs: int
    printed: Mean
    unseen: Mean
    gap: Mean


def write_leakage(path: Path, rows: Sequence[LeakageRow]) -> None:
    """Write a row a run as CSV; cells of failed runs stay empty but for the reason."""
    names = ("configuration", "level", "seed")
    table: list[dict[str, object]] = []
    for row in rows:
        cells: dict[str, object] = {name: getattr(row, name) for name in names}
        if row.scores is not None:
            cells |= row.scores.model_dump() | {"seconds": f"{row.scores.seconds:.1f}"}
            for name in ("printed_dice", "unseen_dice", "gap"):
                cells[name] = f"{getattr(row.scores, name):.6f}"
        table.append({**cells, "reason": row.reason, **row.config.model_dump()})
    dice_columns = ("printed_dice", "unseen_dice", "gap")
    others = [name for name in LeakageScores.model_fields if name not in dice_columns]
    write_csv(path, [*names, *dice_columns, *others, "reason", *TrialConfig.model_fields], table)


def means(rows: Sequence[LeakageRow]) -> list[LeakageMeans]:
    """Average over seeds, in the rows' order; what has no finished run is left out."""
    groups: dict[tuple[str, str], list[LeakageScores]] = {}
    for row in rows:
        if row.scores is not None:
            groups.setdefault((row.configuration, row.level), []).append(row.scores)
    return [
        LeakageMeans(
            configuration=configuration,
            level=level,
            runs=len(group),
            printed=_mean([one.printed_dice for one in group]),
            unseen=_mean([one.unseen_dice for one in group]),
            gap=_mean([one.gap for one in group]),
        )
        for (configuration, level), group in groups.items()
    ]


def _mean(values: Sequence[float]) -> Mean:
    return Mean(value=fmean(values), spread=stdev(values) if len(values) > 1 else None)


def sentences(averages: Sequence[LeakageMeans]) -> list[str]:
    """Say in plain words what a slice-level split would have printed, by configuration."""
    by_key = {(average.configuration, average.level): average for average in averages}
    lines = []
    for configuration in dict.fromkeys(average.configuration for average in averages):
        by_slice = by_key.get((configuration, "slice"))
        by_patient = by_key.get((configuration, "patient"))
        beside = _amount(by_patient) if by_patient else "no run finished"
        if by_slice is None:
            lines.append(f"{configuration}: no slice-level run finished (patient-level: {beside}).")
            continue
        lines.append(
            f"{configuration}: a slice-level split would have printed "
            f"{by_slice.printed.value:.3f} where unseen patients score "
            f"{by_slice.unseen.value:.3f}: {_amount(by_slice)} (patient-level: {beside})."
        )
    return lines


def _amount(average: LeakageMeans) -> str:
    gap = round(average.gap.value, 3)
    if gap == 0:
        return "neither too much nor too little"
    return f"{abs(gap):.3f} too {'much' if gap > 0 else 'little'}"
