"""The results of an experiment that a report shows, read once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError
from strokeseg.imaging.slices import AXES
from strokeseg.records.config import TrialConfig
from strokeseg.records.ensemble import (
    MEMBERS_FOLDER,
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)
from strokeseg.records.experiment import Experiment
from strokeseg.records.leaderboard import LeaderboardRow, read_leaderboard
from strokeseg.records.member_header import read_member_record
from strokeseg.records.preparation import Preparation, read_preparation
from strokeseg.records.record import parse_values
from strokeseg.records.scores import StudyRecord, Summary
from strokeseg.records.summary import VOTE, ScoreRow, current_summary, read_choice, read_scores
from strokeseg.storage.files import converts_errors, read_csv, read_json


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """The results of an experiment.

    Attributes:
        preparation: Its data.
        boards: The leaderboards' rows by axis, best first.
        importances: Of the parameters by axis; an axis of too few trials is left out.
        ensemble: What was promoted.
        choice: How it was chosen, as `promote` wrote it; None where that is not known.
        summary: What `evaluate` wrote.
        scores: A row a case and method.
        command: The command that made these results.
        studies: How each axis was searched; an axis of an earlier version is left out.
        searched_again: Axes whose members are no trials of the search that is there now.
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
    studies: Mapping[str, StudyRecord] = field(default_factory=dict)
    searched_again: Sequence[str] = ()

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
        """Why cases could not be scored, those of baselines among them, by name."""
        return {**self.summary["failed"], **self.summary["baselines_failed"]}

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


def read_results(experiment: Experiment, command: str) -> Results:
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
    preparation = read_preparation(experiment)
    if summary["preparation_hash"] != preparation.fingerprint:
        raise UserError(
            f"{experiment.summary_json(summary['on'])}: the scores are of other data than are "
            "prepared now; search and promote again, or choose another experiment name"
        )
    boards = {axis: read_leaderboard(experiment.leaderboard_csv(axis)) for axis in AXES}
    ensemble = read_ensemble_record(experiment.ensemble_folder / RECORD_NAME)
    return Results(
        experiment=experiment,
        preparation=preparation,
        boards=boards,
        importances={
            axis: _read_importances(path)
            for axis in AXES
            if (path := experiment.importances_csv(axis)).exists()
        },
        ensemble=ensemble,
        choice=read_choice(experiment),
        summary=summary,
        scores=read_scores(experiment.metrics_csv(summary["on"])),
        command=command,
        studies={
            axis: _read_study(path)
            for axis in AXES
            if (path := experiment.study_json(axis)).exists()
        },
        searched_again=_searched_again(experiment, ensemble, boards),
    )


def _read_study(path: Path) -> StudyRecord:
    study: StudyRecord = parse_values(StudyRecord, read_json(path), str(path), "search again")
    return study


def _searched_again(
    experiment: Experiment,
    ensemble: EnsembleRecord,
    boards: Mapping[str, Sequence[LeaderboardRow]],
) -> list[str]:
    """Return the axes with a member that is no run of their leaderboard, further runs included."""
    folder = experiment.ensemble_folder / MEMBERS_FOLDER
    found: list[str] = []
    for axis, names in ensemble.members.items():
        trials = {row.trial: row.config for row in boards[axis]}
        records = [read_member_record(folder / name) for name in names]
        if any(not _is_alike(trials.get(record.trial), record.config) for record in records):
            found.append(axis)
    return found


def _is_alike(one: TrialConfig | None, other: TrialConfig) -> bool:
    """Whether two configurations are the same, but for digits that a table may leave out."""
    if one is None:
        return False
    return all(
        math.isclose(mine, others, rel_tol=1e-4) if isinstance(mine, float) else mine == others
        for mine, others in zip(one.model_dump().values(), other.model_dump().values(), strict=True)
    )


def _read_importances(path: Path) -> dict[str, float]:
    with converts_errors(path, "table of importances", "search again"):
        return {row["parameter"]: float(row["importance"]) for row in read_csv(path)}
