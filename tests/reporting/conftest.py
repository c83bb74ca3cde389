"""Results without a search: simulated cases, and masks and scores made up of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from strokeseg.evaluation.scoring import CaseResult, scores_of
from strokeseg.evaluation.summarise import (
    BOOTSTRAP,
    by_size,
    disagreement_of,
    methods_of,
    paired_tests,
)
from strokeseg.imaging.cases import Case, mask_name
from strokeseg.imaging.layouts.siss import find_siss_cases
from strokeseg.imaging.slices import AXES
from strokeseg.imaging.volume import read_volume, write_mask
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.experiment import Experiment, open_experiment
from strokeseg.records.leaderboard import LeaderboardRow, with_confirmations
from strokeseg.records.preparation import Preparation
from strokeseg.records.scores import Kind
from strokeseg.records.summary import ScoreRow
from strokeseg.reporting.results import Results

SEQUENCES = ("T1", "T2", "DWI", "FLAIR")
TESTED = 3
EXPERIMENT = """\
data:
  phantom: {cases: 6, spacing_mm: 3.0}
search:
  trials: 3
"""
KINDS: dict[str, Kind] = {
    **dict.fromkeys((f"{axis}-0000" for axis in AXES), "member"),
    **dict.fromkeys(AXES, "axis"),
    "vote": "vote",
    "nnU-Net <2D> | other": "baseline",
}
STEPS = [
    {
        "name": name,
        "tried": 4,
        "best": best,
        "dice_before": 0.5,
        "dice_after": 0.5 + gain,
        "gain": gain,
        "p": p,
        "taken": taken,
    }
    for name, best, gain, p, taken in (
        ("members an axis", "2 members an axis", 0.041, 0.031, True),
        ("smallest lesion", "20 mm³", -0.007, 0.75, False),
    )
]
CHOICE = {
    "method": "guard",
    "patients": 6,
    "dice_start": 0.5,
    "dice_chosen": 0.541,
    "steps": STEPS,
    "left_out": {"dice_start": 0.5, "dice_chosen": 0.522},
    "test": "paired sign-flip test",
    "significant_p": 0.05,
    "smallest_p": 1 / 64,
    "caveat": "These patients also chose the trials.",
}


@pytest.fixture(scope="session")
def results(phantom_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Make the results of six cases, three of them the test's."""
    folder = tmp_path_factory.mktemp("report")
    config = folder / "shown" / "experiment.yaml"
    config.parent.mkdir()
    config.write_text(EXPERIMENT)
    experiment = open_experiment(str(config), str(folder / "runs"))
    found = find_siss_cases(phantom_cases, SEQUENCES)
    subsets = [*("0", "1", "1"), *["test"] * TESTED]
    cases = {
        case.name: Case(
            name=case.name, patient=case.patient, images=case.images, mask=case.mask, fold=subset
        )
        for case, subset in zip(found, subsets, strict=True)
    }
    rows, case_results = _scored(
        experiment, [case for case in cases.values() if case.fold == "test"]
    )
    return Results(
        experiment=experiment,
        preparation=Preparation(
            cases=cases,
            lesion_ml=dict.fromkeys(cases, 1.0),
            spacing_mm=(3.0, 3.0, 3.0),
            fingerprint="f" * 64,
            splits_hash="5" * 64,
        ),
        boards={axis: board() for axis in AXES},
        importances={"axial": {"learning_rate": 0.75, "encoder": 0.25}},
        ensemble=EnsembleRecord(
            name="shown",
            sequences=SEQUENCES,
            members={axis: (f"{axis}-0000.safetensors",) for axis in AXES},
            preparation_hash="f" * 64,
            code_version="1.0",
        ),
        choice=CHOICE,
        summary={
            "experiment": "shown",
            "on": "test",
            "caution": None,
            "policy": "isles22",
            "ensemble_sha256": "e" * 64,
            "splits_hash": "5" * 64,
            "preparation_hash": "f" * 64,
            "code_version": "1.0",
            "versions": {"python": "3.11", "torch": "2.15"},
            "cases": TESTED,
            "patients": TESTED,
            "failed": {"77": "a <damaged> file"},
            "baselines_failed": {},
            "bootstrap": BOOTSTRAP,
            "methods": methods_of(rows),
            "by_size": by_size(rows),
            "tests": paired_tests(rows),
            "disagreement": disagreement_of(rows, case_results),
        },
        scores=rows,
        command="strokeseg run --experiment shown",
    )


def _scored(
    experiment: Experiment, cases: list[Case]
) -> tuple[list[ScoreRow], dict[str, CaseResult]]:
    """Predict the true lesion, moved by as many voxels as the case comes late."""
    rows: list[ScoreRow] = []
    case_results = {}
    for shift, case in enumerate(cases):
        assert case.mask is not None
        truth = read_volume(case.mask)
        predicted = np.roll(truth.voxels, shift, axis=0).astype(np.uint8)
        path = experiment.masks_folder("test") / mask_name(case.name, "vote")
        write_mask(path, predicted, truth.grid)
        values = scores_of(
            truth.voxels.astype(np.uint8), predicted, truth.grid.spacing_mm, "isles22"
        )
        rows += [
            ScoreRow(case=case.name, patient=case.patient, method=name, kind=kind, values=values)
            for name, kind in KINDS.items()
        ]
        case_results[case.name] = CaseResult(
            rows=(), mean_disagreement=0.1 + 0.1 * shift, auroc=0.9 if shift else None
        )
    return rows, case_results


def board() -> list[LeaderboardRow]:
    """Three trials, one of each end, and a further run of the best."""
    return with_confirmations(
        [
            trial(0, "COMPLETE", 0.6, learning_rate=3e-3),
            trial(2, "PRUNED", 0.3, learning_rate=1e-3, encoder="resnet18"),
            trial(1, "FAIL", None, learning_rate=1e-2),
            trial(3, "COMPLETE", 0.5, learning_rate=3e-3, confirms=0),
        ]
    )


def trial(
    number: int,
    state: str,
    dice: float | None,
    *,
    learning_rate: float,
    encoder: str = "resnet34",
    confirms: int | None = None,
) -> LeaderboardRow:
    """One trial of an otherwise plain configuration."""
    return LeaderboardRow(
        trial=number,
        state=state,
        dice=dice,
        best_epoch=2 if dice else None,
        epochs_run=4,
        seconds=30.0,
        reason="",
        confirms=confirms,
        parameters={
            **{"learning_rate": learning_rate, "weight_decay": 1e-4, "encoder": encoder},
            **{"encoder_depth": 3, "pretrained": False, "batch_size": 16},
        },
    )
