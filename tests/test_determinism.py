"""Equal seeds on one machine: the same trials, scores, ensemble and bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tiny_experiment import write_experiment

from strokeseg import run
from strokeseg.imaging.slices import AXES
from strokeseg.records.experiment import open_experiment
from strokeseg.records.leaderboard import read_leaderboard
from strokeseg.search import main as search

SPACE = """\
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {choices: [4, 8]}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
"""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_deterministic_run_gives_the_same_trials_scores_and_bundle_again(
    tmp_path: Path, phantom_cases: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    search = {"grace_epochs": 1}
    config = write_experiment(
        tmp_path,
        space=SPACE,
        data=phantom_cases,
        search=search,
        ensemble={"candidates_per_axis": 2},
    )
    found = []
    for storage in (tmp_path / "once", tmp_path / "again"):
        options = ["--experiment", str(config), "--storage", str(storage), "--deterministic"]
        assert run.main(options) == 0, capsys.readouterr().err
        experiment = open_experiment(str(config), str(storage))
        rows = [
            (axis, row.trial, row.state, row.epochs_run, row.dice, row.config)
            for axis in AXES
            for row in read_leaderboard(experiment.leaderboard_csv(axis))
        ]
        assert {row[2] for row in rows} <= {"COMPLETE", "PRUNED"}
        files = {
            str(path.relative_to(experiment.folder)): _sha256(path)
            for pattern in ("ensemble/**/*", "evaluation/masks/**/*.nii.gz", "evaluation/*.csv")
            for path in sorted(experiment.folder.glob(pattern))
            if path.is_file()
        }
        assert len(files) > 3
        found.append((rows, files, _sha256(experiment.bundle_zip)))
    assert found[0] == found[1]


def test_one_trial_at_a_time_leaves_nothing_to_measure_sharing_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--axis", "axial", "--storage", str(tmp_path), "--deterministic"]
    assert search([*options, "--gpus-per-trial", "auto"]) == 2
    assert "--deterministic runs one trial at a time" in capsys.readouterr().err
