"""A prepared experiment with an ensemble of untrained networks, and made-up score rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import Place, write_experiment

import strokeseg.evaluate
import strokeseg.prepare
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.records.ensemble import EnsembleRecord, write_ensemble
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import read_preparation
from strokeseg.records.scores import Kind
from strokeseg.records.summary import METRICS, ScoreRow
from strokeseg.training.checkpoint import MemberRecord, save_member
from strokeseg.training.network import build_network

AXES = ("axial", "coronal", "sagittal")

_SMALL = TrialConfig(encoder="resnet18", encoder_depth=3)


@pytest.fixture(scope="session")
def _promoted(
    tmp_path_factory: pytest.TempPathFactory,
    phantom_cases: Path,
    launch: Callable[..., Any],
    local_ray: None,
) -> Place:
    folder = tmp_path_factory.mktemp("evaluation")
    config = write_experiment(folder, data=phantom_cases)
    place = Place(config=config, storage=folder / "runs", cases=phantom_cases)
    outcome = launch(strokeseg.prepare.main, *place.options)
    assert outcome.code == 0, outcome.err
    _promote(place.experiment, folder / "members")
    return replace(place, more=("--device", "cpu"))


def _promote(experiment: Experiment, folder: Path) -> None:
    """Two members along the first axis, one along the others, and a set for comparison."""
    folder.mkdir()
    preparation = read_preparation(experiment)
    sequences = experiment.config.data.sequences
    files = {}
    for axis, trial in [(AXES[0], 0), (AXES[0], 1), (AXES[1], 0), (AXES[2], 0), (AXES[2], 1)]:
        path = folder / f"{axis}-{trial:04d}.safetensors"
        network = build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3),
            channels=len(sequences),
            seed=len(files),
        )
        record = MemberRecord(
            axis=axis,  # type: ignore[arg-type]
            trial=trial,
            config=_SMALL,
            channels=sequences,
            dice=0.5,
            epoch=1,
            spacing_mm=preparation.spacing_mm,
            preparation_hash=preparation.fingerprint,
            code_version="1",
        )
        save_member(path, network, record)
        files[path.name] = path
    names = [f"{axis}-0000.safetensors" for axis in AXES]
    record = EnsembleRecord.model_validate(
        {
            "name": experiment.name,
            "sequences": sequences,
            "spacing_mm": preparation.spacing_mm,
            "members": {
                **{axis: (name,) for axis, name in zip(AXES, names, strict=True)},
                AXES[0]: (names[0], f"{AXES[0]}-0001.safetensors"),
            },
            "comparison": {
                "pretrained": {axis: (name,) for axis, name in zip(AXES, names, strict=True)},
                "scratch": {
                    **{axis: (name,) for axis, name in zip(AXES, names, strict=True)},
                    AXES[2]: (f"{AXES[2]}-0001.safetensors",),
                },
            },
            "preparation_hash": preparation.fingerprint,
            "code_version": "1",
        }
    )
    write_ensemble(experiment.ensemble_folder, record, files)


@pytest.fixture(scope="session")
def evaluated(_promoted: Place, launch: Callable[..., Any]) -> Place:
    """The experiment with its test cases scored; look, do not touch."""
    outcome = launch(strokeseg.evaluate.main, *_promoted.options)
    assert outcome.code == 0, outcome.err
    return _promoted


@pytest.fixture
def spare(evaluated: Place, tmp_path: Path) -> Place:
    """A copy of the scored experiment, to spoil at will."""
    return evaluated.copy(tmp_path / "runs")


@pytest.fixture
def score_row() -> Callable[..., ScoreRow]:
    """Make a row whose metrics are 0 but for those given; the patient is the case's letter."""

    def make(case: str, method: str, kind: Kind = "vote", **values: float | None) -> ScoreRow:
        return ScoreRow(
            case=case,
            patient=case[0],
            method=method,
            kind=kind,
            values={**dict.fromkeys(METRICS, 0.0), **values},
        )

    return make
