"""Importances: what decides comes first, and no number is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.storage.files import read_csv
from strokeseg.tuning.importances import LEAST_TRIALS, importances_of, write_importances

RATES, SHARES = FloatDistribution(1e-4, 1e-2, log=True), FloatDistribution(0.0, 1.0)


def trial_of(
    generator: np.random.Generator,
    state: TrialState = TrialState.COMPLETE,
    score: Callable[[float], float] = lambda rate: 0.6 - 0.2 * abs(np.log10(rate) + 3),
) -> FrozenTrial:
    """A trial whose score its learning rate alone decides; stopped ones have but two epochs."""
    rate = 10 ** generator.uniform(-4, -2)
    params = {"learning_rate": rate, "augmentation": generator.uniform(), "encoder": "resnet18"}
    distributions = {
        "learning_rate": RATES,
        "augmentation": SHARES,
        "encoder": CategoricalDistribution(["resnet18"]),
    }
    if generator.uniform() < 0.5:
        # Exists in some trials only.
        params["focal_weight"], distributions["focal_weight"] = generator.uniform(), SHARES
    scores = [score(rate) / 2, score(rate), score(rate) / 3]
    return optuna.create_trial(
        params=params,
        distributions=distributions,
        state=state,
        value=max(scores) if state is TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(scores[: 3 if state.is_finished() else 1], start=1)),
    )


def written(folder: Path, trials: Sequence[FrozenTrial]) -> tuple[str, Path]:
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        study_name="axial",
        direction="maximize",
    )
    study.add_trials(trials)
    path = folder / "importances.csv"
    return write_importances(folder / "journal.log", "axial", rows_of(study.trials), path), path


def rows_of(trials: Sequence[FrozenTrial]) -> list[LeaderboardRow]:
    """The leaderboard of a study without further runs."""
    return [
        LeaderboardRow(
            trial=trial.number,
            state=trial.state.name,
            dice=max(trial.intermediate_values.values()),
            best_epoch=2,
            epochs_run=len(trial.intermediate_values),
            seconds=1.0,
            reason="",
            parameters={},
        )
        for trial in trials
    ]


def test_the_parameter_that_decides_comes_first_and_fixed_ones_are_left_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    complete = [trial_of(generator) for _ in range(LEAST_TRIALS)]
    pruned = [trial_of(generator, TrialState.PRUNED) for _ in range(10)]
    line, path = written(tmp_path, [*complete, *pruned])
    rows = read_csv(path)
    assert rows[0].keys() == {"parameter", "importance"}
    assert rows[0]["parameter"] == "learning_rate"
    assert {row["parameter"] for row in rows} == {"learning_rate", "augmentation", "focal_weight"}
    shares = [float(row["importance"]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-3) and shares[0] > 0.5
    assert f"over {LEAST_TRIALS + 10} trials: learning_rate {shares[0]:.2f}" in line
    assert str(path) in line


def test_trials_that_were_stopped_early_count(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    few = [trial_of(generator) for _ in range(5)]
    pruned = [trial_of(generator, TrialState.PRUNED) for _ in range(LEAST_TRIALS - 5)]
    _, path = written(tmp_path, [*few, *pruned])
    assert read_csv(path)[0]["parameter"] == "learning_rate"


def test_too_few_trials_are_said_to_be_too_few_and_leave_no_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scored = [trial_of(generator) for _ in range(LEAST_TRIALS - 1)]
    unscored = [trial_of(generator, state) for state in (TrialState.FAIL, TrialState.RUNNING)]
    line, path = written(tmp_path, [*scored, *unscored])
    assert not path.exists()
    assert f"since {LEAST_TRIALS - 1} trials have a score" in line and "\n" not in line


def test_trials_that_score_alike_have_no_importances(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    trials = [trial_of(generator, score=lambda rate: 0.0) for _ in range(LEAST_TRIALS)]
    assert importances_of(trials) == {}
    line, path = written(tmp_path, trials)
    assert not path.exists() and "no parameter importances" in line
