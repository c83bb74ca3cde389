"""All that a report tells of, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.files import read_csv, told_as
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import LeaderboardRow, read_leaderboard
from strokeseg.learning.ensemble_record import RECORD_NAME, EnsembleRecord, read_ensemble_record
from strokeseg.preparation.record import Preparation, read_preparation
from strokeseg.record_types import Summary
from strokeseg.summary import VOTE, ScoreRow, current_summary, read_choice, read_scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What an experiment has found.

    Attributes:
        experiment: Which.
        preparation: Its data.
        boards: The leaderboards' rows by axis, best first.
        importances: Of the parameters by axis; an axis of too few trials is left out.
        ensemble: What was promoted.
        choice: How it was chosen, as `promote` wrote it; nothing where that is not known.
        summary: What `evaluate` wrote.
        scores: A row a case and method.
        command: The command that makes these results again.
    """

    experiment: Experiment
    preparation: Preparation
    boards: Mapping[str, Sequence[LeaderboardRow]]
    importances: Mapping[str, Mapping[str, float]]
    ensemble: EnsembleRecord
    choice: Mapping[str, Any] | None
    summary: Summary
    scores: Sequence[ScoreRow]
    command: str

    @property
    def on_test(self) -> bool:
        """Whether the scores are those of the locked test patients."""
        return self.summary["on"] == "test"

    @property
    def dice(self) -> Mapping[str, Any]:
        """The statistic of the vote's Dice."""
        statistic: Mapping[str, Any] = self.summary["methods"][VOTE]["metrics"]["dice"]
        return statistic

    @property
    def failed(self) -> dict[str, str]:
        """Why cases could not be scored, those of rivals among them, by name."""
        return {**self.summary["failed"], **self.summary["rivals_failed"]}

    def methods(self, *kinds: str) -> dict[str, Mapping[str, Any]]:
        """What the summary says of the methods of some kinds."""
        return {
            name: found for name, found in self.summary["methods"].items() if found["kind"] in kinds
        }

    def every_row(self, method: str = VOTE) -> list[ScoreRow]:
        """A method's score rows, the worst first, and after them those without a Dice."""
        without = [
            row for row in self.scores if row.method == method and row.values["dice"] is None
        ]
        return [*self.rows(method), *sorted(without, key=lambda row: row.case)]

    def rows(self, method: str = VOTE) -> list[ScoreRow]:
        """A method's score rows with a Dice, the worst first."""
        known = [
            row for row in self.scores if row.method == method and row.values["dice"] is not None
        ]
        return sorted(known, key=lambda row: (row.values["dice"] or 0.0, row.case))


def read_findings(experiment: Experiment, command: str) -> Findings:
    """Read what the commands before have left.

    Raises:
        UserError: When the experiment is not evaluated yet, or a file is damaged.
    """
    summary = current_summary(experiment) if experiment.ensemble_folder.exists() else None
    if summary is None:
        raise UserError(
            f"{experiment.summary_json('test')}: the ensemble that is there has not been scored; "
            f"run strokeseg evaluate --experiment {experiment.name} first"
        )
    return Findings(
        experiment=experiment,
        preparation=read_preparation(experiment),
        boards={axis: read_leaderboard(experiment.leaderboard_csv(axis)) for axis in AXES},
        importances={
            axis: _read_importances(path)
            for axis in AXES
            if (path := experiment.importances_csv(axis)).exists()
        },
        ensemble=read_ensemble_record(experiment.ensemble_folder / RECORD_NAME),
        choice=read_choice(experiment),
        summary=summary,
        scores=read_scores(experiment.metrics_csv(summary["on"])),
        command=command,
    )


def _read_importances(path: Path) -> dict[str, float]:
    with told_as(path, "table of importances", "search again"):
        return {row["parameter"]: float(row["importance"]) for row in read_csv(path)}
