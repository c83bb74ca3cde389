"""An experiment that is finished but for its networks: what they would say is made up.

Cases, splits, scores and summary are real ones; predictions are the truth, moved. No slices are
cut, since a report reads none.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from strokeseg.config import TrialConfig
from strokeseg.evaluation.scoring import CaseResult, scores_of
from strokeseg.evaluation.summarise import (
    BOOTSTRAP,
    by_size,
    disagreement_of,
    methods_of,
    paired_tests,
)
from strokeseg.experiment import Experiment, open_experiment
from strokeseg.files import write_csv, write_json
from strokeseg.imaging.cases import Case, find_siss_cases, mask_name
from strokeseg.imaging.phantoms import write_phantoms
from strokeseg.imaging.slices import AXES
from strokeseg.imaging.splits import draw_splits, write_splits
from strokeseg.imaging.table import SCHEMA_VERSION
from strokeseg.imaging.volume import read_volume, write_mask
from strokeseg.leaderboard import LeaderboardRow, with_confirmations, write_leaderboard
from strokeseg.learning.ensemble_record import EnsembleRecord, write_ensemble
from strokeseg.preparation.record import Measured, read_preparation, settings_of, write_cases
from strokeseg.summary import Kind, ScoreRow, ensemble_hash, write_scores

# A name that would be markup if it were not escaped.
HOSTILE = "resnet<script>alert(1)</script>&|"
TESTED = ("1", "2", "3", "4")
MOVES = {"axial": 1, "coronal": 2, "sagittal": 3, "vote": 1}

EXPERIMENT = f"""\
data:
  phantom: {{cases: 8, spacing_mm: 6.0, seed: 0}}
splits:
  folds: 2
  test_patients: {json.dumps(TESTED)}
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, board: list[LeaderboardRow]) -> Experiment:
    """A finished experiment; not to be changed."""
    folder = tmp_path_factory.mktemp("reporting")
    path = folder / "small" / "experiment.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT, encoding="utf-8")
    experiment = open_experiment(str(path), str(folder / "runs"))
    _prepare(experiment)
    for axis in AXES:
        write_leaderboard(experiment.leaderboard_csv(axis), board)
    write_csv(
        experiment.importances_csv("axial"),
        ("parameter", "importance"),
        [
            {"parameter": "learning_rate", "importance": 0.75},
            {"parameter": "encoder", "importance": 0.25},
        ],
    )
    _promote(experiment, folder)
    _evaluate(experiment)
    return experiment


def _prepare(experiment: Experiment) -> None:
    config = experiment.config
    phantoms = config.data.phantom
    assert phantoms is not None
    write_phantoms(
        experiment.data_path,
        cases=phantoms.cases,
        spacing_mm=phantoms.spacing_mm,
        seed=phantoms.seed,
    )
    cases = find_siss_cases(experiment.data_path, config.data.sequences)
    splits = draw_splits(
        {case.patient: 1.0 for case in cases},
        folds=config.splits.folds,
        test_share=config.splits.test_share,
        seed=config.splits.seed,
        test_patients=config.splits.test_patients,
    )
    write_splits(experiment.splits_json, splits)
    measured = [Measured() for _ in cases]
    write_cases(experiment.cases_csv, config, cases, splits, measured)
    write_json(
        experiment.preparation_json,
        {
            "fingerprint": "0123456789abcdef",
            "schema_version": SCHEMA_VERSION,
            "settings": settings_of(config),
            "spacing_mm": [phantoms.spacing_mm] * 3,
        },
    )


@pytest.fixture(scope="session")
def board() -> list[LeaderboardRow]:
    """Five trials: three complete, one stopped early, one failed; and a further run of the best."""
    return with_confirmations(
        [
            _row(0, "COMPLETE", 0.41, learning_rate=1e-3),
            _row(1, "COMPLETE", 0.63, learning_rate=2e-2, encoder=HOSTILE),
            _row(2, "PRUNED", 0.20, learning_rate=2e-4),
            _row(3, "FAIL", None, learning_rate=5e-2),
            _row(4, "COMPLETE", 0.52, learning_rate=5e-3, encoder_depth=3),
            _row(5, "COMPLETE", 0.60, confirms=1, learning_rate=2e-2, encoder=HOSTILE),
        ]
    )


def _row(
    trial: int, state: str, dice: float | None, confirms: int | None = None, **values: object
) -> LeaderboardRow:
    return LeaderboardRow(
        trial=trial,
        state=state,
        dice=dice,
        best_epoch=None if dice is None else 2,
        epochs_run=3,
        seconds=60.0,
        reason="",
        origin="default" if trial == 0 else "sampler",
        confirms=confirms,
        parameters=TrialConfig.model_validate(values).model_dump(),
    )


def _promote(experiment: Experiment, folder: Path) -> None:
    preparation = read_preparation(experiment)
    weights = folder / "weights"
    weights.write_bytes(b"no network")
    members = {axis: (f"{axis}-0001.safetensors",) for axis in AXES}
    record = EnsembleRecord.model_validate(
        {
            "name": experiment.name,
            "sequences": experiment.config.data.sequences,
            "spacing_mm": preparation.spacing_mm,
            "members": members,
            "preparation_hash": preparation.fingerprint,
            "code_version": "0",
        }
    )
    files = {name: weights for names in members.values() for name in names}
    write_ensemble(experiment.ensemble_folder, record, files)
    step = {"dice_before": 0.5, "dice_after": 0.52, "gain": 0.02, "p": 0.25, "taken": False}
    write_json(
        experiment.choice_json,
        {
            "method": "guard",
            "patients": 2,
            "steps": [{"name": "threshold", "tried": 9, "best": "0.4", **step}],
            "caveat": "These patients flatter.",
        },
    )


def _evaluate(experiment: Experiment) -> None:
    preparation = read_preparation(experiment)
    results = {
        name: _result(experiment, preparation.cases[name]) for name in preparation.names("test")
    }
    rows = [row for result in results.values() for row in result.rows]
    summary = {
        "experiment": experiment.name,
        "on": "test",
        "caution": None,
        "policy": "isles22",
        "ensemble_sha256": ensemble_hash(experiment),
        "splits_hash": preparation.splits_hash,
        "preparation_hash": preparation.fingerprint,
        "code_version": "0",
        "versions": {"python": "3"},
        "cases": len(results),
        "patients": len(results),
        "failed": {"<b>99</b>": "no such file"},
        "bootstrap": BOOTSTRAP,
        "methods": methods_of(rows),
        "by_size": by_size(rows),
        "tests": paired_tests(rows),
        "disagreement": disagreement_of(rows, results),
    }
    write_scores(experiment.metrics_csv("test"), rows)
    write_json(experiment.summary_json("test"), summary)


def _result(experiment: Experiment, case: Case) -> CaseResult:
    assert case.mask is not None
    truth = read_volume(case.mask)
    masks = {method: _moved(truth.voxels, by) for method, by in MOVES.items()}
    folder = experiment.masks_folder("test")
    write_mask(folder / mask_name(case.name, "vote"), masks["vote"], truth.grid)
    rows = tuple(
        ScoreRow(
            case=case.name,
            patient=case.patient,
            method=method,
            kind=_kind(method),
            values=scores_of(truth.voxels > 0, mask > 0, truth.grid.spacing_mm, "isles22"),
        )
        for method, mask in masks.items()
    )
    return CaseResult(rows=rows, mean_disagreement=0.1 * int(case.name), auroc=0.9)


def _moved(mask: NDArray[np.float32], by: int) -> NDArray[np.uint8]:
    return np.roll(mask, by, axis=0).astype(np.uint8)


def _kind(method: str) -> Kind:
    return "vote" if method == "vote" else "axis"
