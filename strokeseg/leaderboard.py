"""The leaderboard: what became of each trial of one axis, and which of them are best.

A *row* is one trial. Its score, `dice`, is the best mean 3D Dice over the validation
patients in any of its epochs. Only COMPLETE trials can become members of the ensemble;
for the comparison of pretrained with scratch a PRUNED one will do where no other is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strokeseg.config import TrialConfig
from strokeseg.errors import UserError
from strokeseg.files import read_csv, write_csv


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One trial as the leaderboard tells it.

    Attributes:
        trial: Number of the trial in its study.
        state: `COMPLETE`, `PRUNED` (stopped early), `FAIL` or `RUNNING`.
        dice: Best mean 3D Dice over the validation patients, if any epoch was reported.
        best_epoch: Epoch of that score, from 1.
        epochs_run: Epochs that were reported.
        seconds: Time spent on these epochs.
        reason: Why it failed or was stopped.
        parameters: The trial's configuration by name.
    """

    trial: int
    state: str
    dice: float | None
    best_epoch: int | None
    epochs_run: int
    seconds: float
    reason: str
    parameters: dict[str, Any]

    @property
    def config(self) -> TrialConfig:
        """The trial's configuration."""
        return TrialConfig.model_validate(self.parameters)


_COLUMNS = ("trial", "state", "dice", "best_epoch", "epochs_run", "seconds", "reason")


def write_leaderboard(path: Path, rows: list[LeaderboardRow]) -> None:
    """Write the leaderboard, best trial first, trials without a score last."""
    ordered = sorted(rows, key=lambda row: (row.dice is None, -(row.dice or 0.0), row.trial))
    table = [
        {
            **{column: getattr(row, column) for column in _COLUMNS},
            "dice": None if row.dice is None else f"{row.dice:.6f}",
            "seconds": f"{row.seconds:.1f}",
            **row.parameters,
        }
        for row in ordered
    ]
    write_csv(path, [*_COLUMNS, *TrialConfig.model_fields], table)


def read_leaderboard(path: Path) -> list[LeaderboardRow]:
    """Read a leaderboard as `write_leaderboard` left it.

    Raises:
        UserError: When it is missing or its columns are not a leaderboard's.
    """
    try:
        return [_parse_row(row) for row in read_csv(path)]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: is no leaderboard ({error}); run the search again") from None


def _parse_row(row: dict[str, str]) -> LeaderboardRow:
    return LeaderboardRow(
        trial=int(row["trial"]),
        state=row["state"],
        dice=float(row["dice"]) if row["dice"] else None,
        best_epoch=int(row["best_epoch"]) if row["best_epoch"] else None,
        epochs_run=int(row["epochs_run"]),
        seconds=float(row["seconds"]),
        reason=row["reason"],
        parameters=TrialConfig.model_validate(
            {key: row[key] for key in TrialConfig.model_fields}
        ).model_dump(),
    )


def best_members(rows: Sequence[LeaderboardRow], count: int) -> list[LeaderboardRow]:
    """Return the `count` best complete trials, or as many as there are, best first."""
    return _best(rows, ("COMPLETE",))[:count]


def best_by_start(rows: Sequence[LeaderboardRow], *, pretrained: bool) -> LeaderboardRow | None:
    """Return the best trial with (or without) pretrained weights, complete ones first."""
    start = [row for row in rows if row.config.pretrained is pretrained]
    best = _best(start, ("COMPLETE",)) or _best(start, ("PRUNED",))
    return best[0] if best else None


def trials_to_keep(rows: Sequence[LeaderboardRow], count: int) -> set[int]:
    """Return the trials whose weights `promote` may still ask for."""
    starts = [best_by_start(rows, pretrained=start) for start in (True, False)]
    kept = [*best_members(rows, count), *(row for row in starts if row is not None)]
    return {row.trial for row in kept}


def _best(rows: Sequence[LeaderboardRow], states: Sequence[str]) -> list[LeaderboardRow]:
    scored = [row for row in rows if row.state in states and row.dice is not None]
    return sorted(scored, key=lambda row: (-(row.dice or 0.0), row.trial))
