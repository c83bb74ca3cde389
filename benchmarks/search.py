"""What a search is worth: against random search and against the default.

For every seed three searches of axial slices that cost about the same trial-epochs:
ours (TPE, stopped early), random search (no trial stopped, the default left out), and the
default configuration with as many seeds as that pays for. Of each the best trial by
validation is scored on the validation and on the test patients.

An interrupted measurement goes on with the same command.

python -m benchmarks.search --data ../shared/data/siss-like --storage /tmp/gain
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml

from strokeseg.imaging.cases import TEST
from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.prepared import prepare_case
from strokeseg.records.experiment import Experiment, open_experiment, trial_weights
from strokeseg.records.leaderboard import LeaderboardRow, read_leaderboard
from strokeseg.records.preparation import read_preparation
from strokeseg.training.checkpoint import load_member
from strokeseg.training.inference import predict_volume

CHECKOUT = Path(__file__).resolve().parents[1]
TRIALS, EPOCHS, SLICES = 8, 6, 96
AXIS = "axial"
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--storage", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    prepared = prepare(options.storage, options.data)
    gain(options.storage, options.data, prepared, range(options.seeds))


def gain(storage: Path, data: Path, prepared: Path, seeds: range) -> None:
    scores: dict[str, list[tuple[float, float]]] = {}
    spent: dict[str, list[int]] = {}
    for seed in seeds:
        ours = search(storage, data, prepared, "ours", AXIS, seed=seed)
        paid = sum(row.epochs_run for row in board(ours, AXIS))
        runs = math.ceil(paid / EPOCHS)
        whole = {"grace_epochs": EPOCHS}
        arms = {
            "ours": (ours, board(ours, AXIS)),
            "random": _without_default(
                search(
                    *(storage, data, prepared, "random", AXIS),
                    **{"seed": seed, "sampler": "random", "trials": runs + 1, **whole},
                )
            ),
            "default": _all(
                search(
                    *(storage, data, prepared, "default", AXIS),
                    **{"seed": seed, "trials": 1, "confirm_trials": 1},
                    confirm_seeds=runs - 1,
                )
            ),
        }
        for arm, (experiment, rows) in arms.items():
            best = max(rows, key=lambda row: row.dice if row.state == "COMPLETE" else -1.0)
            scores.setdefault(arm, []).append((best.dice, test_dice(experiment, AXIS, best)))
            spent.setdefault(arm, []).append(sum(row.epochs_run for row in rows))
            print(
                f"seed {seed} {arm}: {spent[arm][-1]} epochs, trial {best.trial}, "
                f"validation {scores[arm][-1][0]:.3f}, test {scores[arm][-1][1]:.3f}",
                flush=True,
            )
    print("\n| search | trial-epochs | validation Dice | test Dice |\n| :-- | --: | --: | --: |")
    for arm, pairs in scores.items():
        cells = [interval([pair[subset] for pair in pairs]) for subset in (0, 1)]
        print(f"| {arm} | {fmean(spent[arm]):.0f} | {cells[0]} | {cells[1]} |")
    for arm in ("random", "default"):
        for subset, name in enumerate(("validation", "test")):
            differences = [
                mine[subset] - other[subset]
                for mine, other in zip(scores["ours"], scores[arm], strict=True)
            ]
            print(f"\nours less {arm}, {name}, paired by seed: {interval(differences)}", end="")
    print()


def prepare(storage: Path, data: Path) -> Path:
    """Prepare the data once; every search gets a link to it."""
    experiment = place(storage, data, None, "data", seed=0)
    command = [sys.executable, "-m", "strokeseg.prepare", *_where(experiment)]
    subprocess.run(command, check=True, cwd=CHECKOUT)
    return experiment.prepared_folder


def place(
    storage: Path,
    data: Path,
    prepared: Path | None,
    arm: str,
    *,
    seed: int,
    **search_settings: object,
) -> Experiment:
    folder = storage.absolute() / f"{arm}-{seed}"
    config = folder / "siss-small" / "experiment.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    search = {
        **{"space": str(CHECKOUT / "search_spaces" / "light.yaml"), "seed": seed},
        **{"trials": TRIALS, "epochs": EPOCHS, "slices_per_epoch": SLICES},
        "confirm_trials": 0,
    }
    settings = {
        "data": {"path": str(data.absolute())},
        "splits": {"folds": 4, "test_patients": ["17", "18", "19", "20"]},
        "preparation": {"spacing_mm": [4, 4, 4]},
        "search": {**search, **search_settings},
    }
    config.write_text(yaml.safe_dump(settings))
    experiment = open_experiment(str(config), str(folder / "runs"))
    if prepared is not None and not experiment.prepared_folder.exists():
        shutil.copytree(prepared, experiment.prepared_folder)
    return experiment


def search(
    storage: Path, data: Path, prepared: Path, arm: str, axis: str, **settings: object
) -> Experiment:
    experiment = place(storage, data, prepared, arm, **settings)
    run_search(experiment, axis)
    return experiment


def run_search(experiment: Experiment, axis: str) -> None:
    command = [sys.executable, "-m", "strokeseg.search", "--axis", axis, *_where(experiment)]
    subprocess.run(command, check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)


def _where(experiment: Experiment) -> list[str]:
    storage = str(experiment.folder.parent)
    return ["--experiment", str(experiment.config_path), "--storage", storage]


def board(experiment: Experiment, axis: str) -> list[LeaderboardRow]:
    return read_leaderboard(experiment.leaderboard_csv(axis))


def _all(experiment: Experiment) -> tuple[Experiment, list[LeaderboardRow]]:
    return experiment, board(experiment, AXIS)


def _without_default(experiment: Experiment) -> tuple[Experiment, list[LeaderboardRow]]:
    return experiment, [row for row in board(experiment, AXIS) if row.trial != 0]


def test_dice(experiment: Experiment, axis: str, row: LeaderboardRow) -> float:
    """Mean 3D Dice of a trial's network over the test cases, on their own grids."""
    preparation = read_preparation(experiment)
    member = load_member(trial_weights(experiment.trials_folder(axis), row.trial))
    scores = []
    for name in preparation.names(TEST):
        case = preparation.cases[name]
        prepared = prepare_case(
            case.images,
            sequences=experiment.config.data.sequences,
            mask=case.mask,
            spacing_mm=experiment.config.preparation.spacing_mm,
        )
        probability = predict_volume(
            member.network, prepared.images, axis, slice_size=member.record.slice_size
        )
        mask = (prepared.restore(probability) >= 0.5).astype(np.uint8)
        scores.append(score_masks(prepared.native_mask, mask, prepared.native_grid.spacing_mm).dice)
    return fmean(scores)


def interval(values: list[float]) -> str:
    """Mean and 95 % bootstrap interval over the seeds."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{fmean(values):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
