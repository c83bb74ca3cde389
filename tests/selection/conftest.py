"""A small prepared experiment and trials that were never trained, for all tests of choosing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

from strokeseg.imaging.slices import AXES
from strokeseg.prepare import prepare_experiment
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.records.experiment import Experiment, open_experiment, trial_weights
from strokeseg.records.leaderboard import LeaderboardRow, write_leaderboard
from strokeseg.records.preparation import read_preparation
from strokeseg.training.checkpoint import MemberRecord, save_member
from strokeseg.training.network import build_network

SEQUENCES = ("DWI", "FLAIR")
FOLDS, TRIALS = 2, 2
SMALL = TrialConfig(encoder="resnet18", encoder_depth=3)
SETTINGS = """\
data:
  path: {cases}
  sequences: [DWI, FLAIR]
splits: {{folds: 2, test_share: 0.3}}
preparation: {{spacing_mm: [8, 8, 8]}}
ensemble: {{candidates_per_axis: 2{ensemble}}}
"""


@pytest.fixture(scope="session")
def _prepared(
    phantom_cases: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> Path:
    """Prepare six cases, two of them locked for the test, and make a member of every fold."""
    folder = tmp_path_factory.mktemp("choosing")
    (folder / "small.yaml").write_text(SETTINGS.format(cases=phantom_cases, ensemble=""))
    experiment = open_experiment(str(folder / "small.yaml"), str(folder / "runs"))
    prepare_experiment(experiment, skip_invalid=False, overwrite=False)
    fingerprint = read_preparation(experiment).fingerprint
    for axis, trial, fold in product(AXES, range(TRIALS), range(FOLDS)):
        _save(_member_file(folder, axis, trial, fold), axis, trial, fold, fingerprint)
    return folder


@pytest.fixture
def searched(_prepared: Path, tmp_path: Path, phantom_cases: Path) -> Callable[..., Experiment]:
    """Make an experiment whose axes have two complete trials each, of the given folds."""

    def make(folds: Sequence[int] = (0,), ensemble: str = "", k_fold: bool = False) -> Experiment:
        shutil.copytree(_prepared / "runs", tmp_path / "runs")
        settings = SETTINGS.format(cases=phantom_cases, ensemble=ensemble)
        (tmp_path / "small.yaml").write_text(settings)
        experiment = open_experiment(str(tmp_path / "small.yaml"), str(tmp_path / "runs"))
        for axis in AXES:
            trials = experiment.trials_folder(axis)
            for trial, fold in product(range(TRIALS), folds):
                path = trial_weights(trials, trial, fold if k_fold else None)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(_member_file(_prepared, axis, trial, fold), path)
            rows = [_row(trial) for trial in range(TRIALS)]
            write_leaderboard(experiment.leaderboard_csv(axis), rows)
        return experiment

    return make


def _member_file(folder: Path, axis: str, trial: int, fold: int) -> Path:
    return folder / "members" / f"{axis}-{trial}-{fold}.safetensors"


def _row(trial: int) -> LeaderboardRow:
    return LeaderboardRow(
        trial=trial,
        state="COMPLETE",
        dice=0.6 - 0.1 * trial,
        best_epoch=1,
        epochs_run=1,
        seconds=1.0,
        reason="",
        parameters=SMALL.model_dump(),
    )


def _save(path: Path, axis: str, trial: int, fold: int, fingerprint: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    network = build_network(
        NetworkConfig(encoder="resnet18", encoder_depth=3),
        channels=len(SEQUENCES),
        seed=100 * AXES.index(axis) + 10 * trial + fold,
    )
    record = MemberRecord(
        axis=axis,
        trial=trial,
        fold=fold,
        config=SMALL,
        channels=SEQUENCES,
        dice=0.5,
        epoch=1,
        spacing_mm=(8.0, 8.0, 8.0),
        preparation_hash=fingerprint,
        code_version="1",
    )
    save_member(path, network, record)
