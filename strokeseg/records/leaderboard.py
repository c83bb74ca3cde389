"""The leaderboard: what became of each trial of one axis, and which of them are best.

A *row* is one trial. Its score, `dice`, is the best mean 3D Dice over the validation
patients in any of its epochs. Only COMPLETE trials can become members of the ensemble;
for the comparison of pretrained with scratch a PRUNED one will do where no other is left.
The best trials are *confirmed* by further runs with other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from strokeseg.records.config import TrialConfig
from strokeseg.storage.files import converts_errors, read_csv, write_csv

# Where a trial's configuration came from, if from no other trial.
DEFAULT, FIRST_POINT, SAMPLER = "default", "first point", "sampler"


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One trial as the leaderboard tells it.

    Attributes:
        trial: Number of the trial in its study.
        state: `COMPLETE`, `PRUNED` (stopped early), `FAIL` or `RUNNING`.
        dice: Best mean 3D Dice over the validation patients, if any epoch was reported.
        spread: Standard deviation of the Dice over these patients.
        best_epoch: Epoch of that score, from 1; None where every fold has its own.
        epochs_run: Epochs that were reported.
        seconds: Time spent on these epochs.
        device_hours: Hours of one GPU, or of one CPU thread where there is none.
        reason: Why it failed or was stopped.
        origin: Where its configuration came from: `default`, `first point`, `sampler`, a
            trial of an earlier study, or the trial that it confirms.
        confirms: The trial of which this is a further run, with another seed.
        runs: Further runs of this trial that are complete.
        mean_dice: Mean score of these. The first run is left out: it was chosen for its score.
        seed_spread: Their standard deviation.
        inherited: Whether an earlier study ran it.
        listed: Whether it stands on the leaderboard; not so when its weights are gone.
        parameters: The trial's configuration by name.
    """

    trial: int
    state: str
    dice: float | None
    spread: float | None = None
    best_epoch: int | None
    epochs_run: int
    seconds: float
    device_hours: float = 0.0
    reason: str
    origin: str = SAMPLER
    confirms: int | None = None
    runs: int = 0
    mean_dice: float | None = None
    seed_spread: float | None = None
    inherited: bool = False
    listed: bool = True
    parameters: dict[str, Any]

    @property
    def config(self) -> TrialConfig:
        """The trial's configuration."""
        return TrialConfig.model_validate(self.parameters)


_COLUMNS = (
    *("trial", "state", "dice", "best_epoch", "epochs_run", "seconds", "reason"),
    *("spread", "device_hours", "origin", "confirms", "runs", "mean_dice", "seed_spread"),
)
_DECIMALS = {
    **dict.fromkeys(("dice", "spread", "mean_dice", "seed_spread", "device_hours"), 6),
    "seconds": 1,
}


def with_confirmations(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Give every trial the mean and spread of its further runs."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        if row.confirms is not None and row.state == "COMPLETE" and row.dice is not None:
            scores.setdefault(row.confirms, []).append(row.dice)
    return [
        replace(
            row,
            runs=len(found),
            mean_dice=fmean(found),
            seed_spread=stdev(found) if len(found) > 1 else None,
        )
        if (found := scores.get(row.trial))
        else row
        for row in rows
    ]


def write_leaderboard(path: Path, rows: Sequence[LeaderboardRow]) -> None:
    """Write the leaderboard: confirmed trials by their mean first, then the others by score."""
    table = [
        {**{column: _cell(row, column) for column in _COLUMNS}, **row.parameters}
        for row in ranked(rows)
    ]
    write_csv(path, [*_COLUMNS, *TrialConfig.model_fields], table)


def _cell(row: LeaderboardRow, column: str) -> object:
    value = getattr(row, column)
    decimals = _DECIMALS.get(column)
    return value if value is None or decimals is None else f"{value:.{decimals}f}"


def read_leaderboard(path: Path) -> list[LeaderboardRow]:
    """Read a leaderboard as `write_leaderboard` left it.

    Raises:
        UserError: When it is missing or its columns are not a leaderboard's.
    """
    with converts_errors(path, "leaderboard", "run the search again"):
        rows = [_parse_row(row) for row in read_csv(path)]
        if len({row.trial for row in rows}) < len(rows):
            raise ValueError("a trial is there twice")
        return rows


def _parse_row(row: dict[str, str]) -> LeaderboardRow:
    return LeaderboardRow(
        trial=int(row["trial"]),
        state=row["state"],
        dice=_number(row["dice"]),
        spread=_number(row["spread"]),
        best_epoch=int(row["best_epoch"]) if row["best_epoch"] else None,
        epochs_run=int(row["epochs_run"]),
        seconds=_finite(row["seconds"]),
        device_hours=_finite(row["device_hours"]),
        reason=row["reason"],
        origin=row["origin"],
        confirms=int(row["confirms"]) if row["confirms"] else None,
        runs=int(row["runs"]),
        mean_dice=_number(row["mean_dice"]),
        seed_spread=_number(row["seed_spread"]),
        parameters=TrialConfig.model_validate(
            {key: row[key] for key in TrialConfig.model_fields}
        ).model_dump(),
    )


def _number(cell: str) -> float | None:
    return _finite(cell) if cell else None


def _finite(cell: str) -> float:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError(f"numbers must be finite, got {cell!r}")
    return number


def ranked(rows: Iterable[LeaderboardRow]) -> list[LeaderboardRow]:
    """Return the rows in the leaderboard's order.

    Confirmed trials come first, by the mean of their further runs: a score that was measured
    once and chosen for being the best is partly luck.
    """
    return sorted(
        rows,
        key=lambda row: (
            row.mean_dice is None,
            -(row.mean_dice or 0.0),
            row.dice is None,
            -(row.dice or 0.0),
            row.trial,
        ),
    )


def best_complete(rows: Sequence[LeaderboardRow], count: int) -> list[LeaderboardRow]:
    """Return the `count` complete trials of the best scores, further runs left out."""
    complete = _own(rows, "COMPLETE")
    return sorted(complete, key=lambda row: (-(row.dice or 0.0), row.trial))[:count]


def best_members(rows: Sequence[LeaderboardRow], count: int) -> list[LeaderboardRow]:
    """Return the runs to promote, one of each of the `count` best configurations, best first.

    Configurations are ranked as on the leaderboard; of the runs of one, all equal but for
    their seed, the one of the best score is taken.
    """
    chosen = ranked(_own(rows, "COMPLETE"))[:count]
    return [best_run(rows, row) for row in chosen]


def best_run(rows: Sequence[LeaderboardRow], trial: LeaderboardRow) -> LeaderboardRow:
    """Return the run of the best score among a trial and its further runs."""
    further = (row for row in rows if row.confirms == trial.trial and row.state == "COMPLETE")
    return max((trial, *further), key=lambda row: (row.dice or 0.0, -row.trial))


def best_by_start(rows: Sequence[LeaderboardRow], *, pretrained: bool) -> LeaderboardRow | None:
    """Return the best trial with (or without) pretrained weights, complete ones first."""
    start = [row for row in rows if row.parameters["pretrained"] is pretrained]
    best = ranked(_own(start, "COMPLETE")) or ranked(_own(start, "PRUNED"))
    return best[0] if best else None


def trials_to_keep(rows: Sequence[LeaderboardRow], count: int) -> set[int]:
    """Return the trials whose weights `promote` may still ask for.

    Args:
        count: How many configurations may be promoted or have yet to be confirmed.
    """
    starts = [best_by_start(rows, pretrained=start) for start in (True, False)]
    # Confirmed ones all of them: a further run may yet put any of them first.
    complete = _own(rows, "COMPLETE")
    candidates = [*best_complete(rows, count), *ranked(complete)[:count]]
    candidates += [row for row in complete if row.runs]
    kept = [
        *candidates,
        *(best_run(rows, row) for row in candidates),
        *(row for row in starts if row is not None),
    ]
    return {row.trial for row in kept}


def _own(rows: Sequence[LeaderboardRow], state: str) -> list[LeaderboardRow]:
    return [
        row for row in rows if row.state == state and row.dice is not None and row.confirms is None
    ]
