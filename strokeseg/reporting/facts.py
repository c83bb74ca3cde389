"""What a report tells: everything that an experiment has left, read from its files.

The *board* of an axis is its leaderboard, best trial first. The *choice* says how the ensemble
came of the candidates; an ensemble that was made before there was one has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.files import read_csv, read_json
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import LeaderboardRow, read_leaderboard
from strokeseg.learning.ensemble_record import RECORD_NAME, EnsembleRecord, read_ensemble_record
from strokeseg.preparation.record import Preparation, read_preparation
from strokeseg.summary import VOTE, ScoreRow, current_summary, read_scores


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an experiment has left.

    Attributes:
        experiment: Which.
        command: The command that makes these results again.
        preparation: Its data.
        boards: By axis, the leaderboard's rows, best first.
        importances: By axis, the importance of each parameter, the largest first; nothing for
            an axis with too few trials to tell.
        ensemble: What was promoted.
        choice: What `choice.json` says, or nothing.
        summary: What `evaluate` wrote; see `summary`.
        scores: A row a case and method.
    """

    experiment: Experiment
    command: str
    preparation: Preparation
    boards: Mapping[str, Sequence[LeaderboardRow]]
    importances: Mapping[str, Mapping[str, float]]
    ensemble: EnsembleRecord
    choice: Mapping[str, Any] | None
    summary: Mapping[str, Any]
    scores: Sequence[ScoreRow]

    @property
    def tested(self) -> bool:
        """Whether the locked test patients were scored, and not those that chose the trials."""
        return bool(self.summary["on"] == "test")

    @property
    def vote_scores(self) -> list[ScoreRow]:
        """The scores of the ensemble as promoted."""
        return [row for row in self.scores if row.method == VOTE]


def read_facts(experiment: Experiment, command: str | None = None) -> Facts:
    """Read what an experiment has left.

    Args:
        experiment: Which.
        command: The command that made it; nothing for `strokeseg run`.

    Raises:
        UserError: When the ensemble that is there has not been scored, or a file is damaged.
    """
    summary = current_summary(experiment) if experiment.ensemble_folder.exists() else None
    if summary is None:
        raise UserError(
            f"{experiment.summary_json('test')}: the ensemble that is there has not been scored; "
            f"run strokeseg evaluate --experiment {experiment.name} first"
        )
    return Facts(
        experiment=experiment,
        command=command or f"strokeseg run --experiment {experiment.name}",
        preparation=read_preparation(experiment),
        boards={axis: read_leaderboard(experiment.leaderboard_csv(axis)) for axis in AXES},
        importances={axis: _importances(experiment, axis) for axis in AXES},
        ensemble=read_ensemble_record(experiment.ensemble_folder / RECORD_NAME),
        choice=read_json(experiment.choice_json) if experiment.choice_json.exists() else None,
        summary=summary,
        scores=read_scores(experiment.metrics_csv(summary["on"])),
    )


def _importances(experiment: Experiment, axis: str) -> dict[str, float]:
    path = experiment.importances_csv(axis)
    if not path.exists():
        return {}
    try:
        return {row["parameter"]: float(row["importance"]) for row in read_csv(path)}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: holds no importances ({error}); run the search again") from None
