"""A whole search of ours against the script that a user would write (plain_script.py).

Both train the same six configurations of a U-Net from scratch for three epochs of 192 slices,
along the axial axis, on the same prepared slices of the same folds, without augmentation and
without stopping any trial (both have a pruner that lets every trial have its three epochs), and
score each epoch by the mean 3D Dice over the same validation cases, from all of their slices.
Preparation is over before either clock starts, and the script's .npy files are written by then.
Wall time is that of the whole process: imports, Ray's start and end included.

Where the time goes: the script's own log, and our journal, leaderboard and TensorBoard files. What
is neither training nor validation is, for a trial of ours, its start and the writing of its files.

python -m benchmarks.plain
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.part import Options, run_alone, tell, timed
from benchmarks.peers import CHECKOUT
from benchmarks.results import Comparison, Figure, PartResult
from benchmarks.setting import cores
from benchmarks.siss_small import AXIS, our_command, place_experiment, prepare, read_slices
from strokeseg.records.experiment import Experiment, trial_events
from strokeseg.records.leaderboard import read_leaderboard

EPOCHS, SLICES, QUICK_SLICES = 3, 192, 64
# Slices of 128 x 128 pixels; those of the cases' own 2 mm are smaller, 96 x 96, and train so fast
# that the search is mostly start-up.
SPACING_MM, QUICK_SPACING_MM = 1.5, 3.0
TARGET = 0.7
LITE, RESNET = "tu-tf_efficientnet_lite0", "resnet18"
POINTS = tuple(
    {"encoder": encoder, "encoder_depth": depth, "learning_rate": rate, "batch_size": size}
    for encoder, depth, rate, size in (
        (LITE, 4, 3e-3, 16),
        (RESNET, 3, 3e-3, 16),
        (LITE, 5, 1e-3, 8),
        (RESNET, 5, 1e-3, 16),
        (LITE, 3, 5e-3, 16),
        (RESNET, 4, 1e-3, 8),
    )
)
SPACE = {
    "parameters": {
        "encoder": {"choices": [LITE, RESNET]},
        "encoder_depth": {"low": 3, "high": 5},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"choices": [8, 16]},
        **{
            name: {"value": value}
            for name, value in {
                **{"pretrained": False, "weight_decay": 1e-4, "dice_weight": 1.0},
                **{"cross_entropy_weight": 1.0, "focal_weight": 0.0, "augmentation": 0.0},
                "lesion_fraction": 0.5,
            }.items()
        },
    },
    "first": list(POINTS),
}


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Where a search's wall time went.

    Attributes:
        seconds: Wall time of the whole process.
        start: Seconds before the first trial.
        end: Seconds after the last.
        training: Trials' seconds in training, summed over trials that ran side by side.
        validation: The same in validation.
        slots: Trials side by side.
        dice: The best score, to see that both did the same work.
    """

    seconds: float
    start: float
    end: float
    training: float
    validation: float
    slots: int
    dice: float

    def shares(self) -> dict[str, float]:
        """Percent of the wall time, trials side by side counted as one."""
        trials = self.seconds - self.start - self.end
        parts = {
            "start-up, before the first trial": self.start,
            "training": self.training / self.slots,
            "validation": self.validation / self.slots,
            "rest of the trials": trials - (self.training + self.validation) / self.slots,
            "end, after the last trial": self.end,
        }
        return {name: 100 * seconds / self.seconds for name, seconds in parts.items()}


def run(options: Options) -> PartResult:
    """Run both searches, in turn."""
    slices = QUICK_SLICES if options.quick else SLICES
    scripts: list[Spent] = []
    ours: list[Spent] = []
    with tempfile.TemporaryDirectory(prefix="plain-") as place:
        folder = Path(place)
        experiment = _prepared(folder, options, slices)
        shape, validated = _save_arrays(experiment, folder)
        for repeat in range(options.times(3)):
            tell(f"plain: script, {shape}")
            scripts.append(_run_script(folder, slices, options))
            tell(f"plain: script took {scripts[-1].seconds:.0f} s; ours")
            ours.append(_run_ours(experiment, slices, options))
            tell(f"plain: ours took {ours[-1].seconds:.0f} s (round {repeat + 1})")
    return _result(ours, scripts, f"{slices} slices an epoch, {shape}, {validated} validated")


def _prepared(folder: Path, options: Options, slices: int) -> Experiment:
    search = {
        **{"space": "space.yaml", "trials": len(POINTS), "epochs": EPOCHS, "grace_epochs": EPOCHS},
        **{"slices_per_epoch": slices, "confirm_trials": 0},
    }
    spacing = QUICK_SPACING_MM if options.quick else SPACING_MM
    experiment = place_experiment(folder, options.data, spacing_mm=spacing, search=search)
    experiment.space_path(AXIS).write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    prepare(experiment, options)
    return experiment


def _save_arrays(experiment: Experiment, folder: Path) -> tuple[str, int]:
    """Write the script's files; return the slices' shape and the number of those validated."""
    for subset, folds in (("training", (1, 2, 3)), ("validation", (0,))):
        images, masks, cases = read_slices(experiment.slices_folder, folds)
        for name, array in (("images", images), ("masks", masks), ("cases", cases)):
            np.save(folder / f"{subset}_{name}.npy", array)
    (folder / "trials.json").write_text(json.dumps(POINTS), encoding="utf-8")
    return " x ".join(map(str, images.shape[1:])), len(images)


def _run_script(folder: Path, slices: int, options: Options) -> Spent:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "plain_script.py"), str(folder)]
    command += ["--trials", str(folder / "trials.json")]
    command += ["--epochs", str(EPOCHS), "--slices", str(slices)]
    done = timed(command, options)
    with (folder / "log.csv").open(newline="") as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    if len(rows) != EPOCHS * len(POINTS):
        raise RuntimeError(f"the script must log {EPOCHS * len(POINTS)} epochs, got {len(rows)}")
    begun = rows[0]["ended"] - rows[0]["train_seconds"] - rows[0]["validation_seconds"]
    return Spent(
        seconds=done.seconds,
        start=begun - done.started,
        end=done.started + done.seconds - rows[-1]["ended"],
        training=sum(row["train_seconds"] for row in rows),
        validation=sum(row["validation_seconds"] for row in rows),
        slots=1,
        dice=max(row["dice"] for row in rows),
    )


def _run_ours(experiment: Experiment, slices: int, options: Options) -> Spent:
    shutil.rmtree(experiment.search_folder(AXIS), ignore_errors=True)
    done = timed([*our_command("search", experiment), "--axis", AXIS], options)
    rows = read_leaderboard(experiment.leaderboard_csv(AXIS))
    epochs = sum(row.epochs_run for row in rows)
    if epochs != EPOCHS * len(POINTS):
        raise RuntimeError(f"our search must run {EPOCHS * len(POINTS)} epochs, got {epochs}")
    backend = optuna.storages.journal.JournalFileBackend(str(experiment.journal(AXIS)))
    study = optuna.load_study(study_name=AXIS, storage=optuna.storages.JournalStorage(backend))
    begun = [trial.datetime_start.timestamp() for trial in study.trials]
    ended = [trial.datetime_complete.timestamp() for trial in study.trials]
    training = sum(
        slices / speed
        for row in rows
        for speed in _speeds(trial_events(experiment.tensorboard_folder(AXIS), row.trial))
    )
    return Spent(
        seconds=done.seconds,
        start=min(begun) - done.started,
        end=done.started + done.seconds - max(ended),
        training=training,
        validation=sum(row.seconds for row in rows) - training,
        slots=_side_by_side(begun, ended),
        dice=max(row.dice for row in rows),
    )


def _speeds(folder: Path) -> list[float]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars("training/slices_per_second")]


def _side_by_side(begun: Sequence[float], ended: Sequence[float]) -> int:
    """Return the most trials that ran at once, a start at the moment of an end not counted."""
    running = [sum(a <= moment < b for a, b in zip(begun, ended, strict=True)) for moment in begun]
    return min(max(running), cores())


def _result(ours: Sequence[Spent], scripts: Sequence[Spent], size: str) -> PartResult:

    figures = [
        *_shares("ours", [one.shares() for one in ours]),
        *_shares("plain script", [one.shares() for one in scripts]),
        Figure(name="ours: best Dice", unit="", values=tuple(one.dice for one in ours)),
        Figure(name="plain script: best Dice", unit="", values=tuple(one.dice for one in scripts)),
    ]
    return PartResult(
        title="How long does a whole search take, against the script one would write?",
        method=(
            f"Six configurations of three epochs each, {size}, no augmentation, no trial stopped; "
            f"ours ran {max(one.slots for one in ours)} trials side by side of one thread each, "
            "the script one after another with all threads. Whole processes; preparation is "
            "over before either starts. The Dice only shows that both do the same work."
        ),
        comparisons=(
            Comparison(
                what="whole search, wall time",
                other="the plain script",
                unit="s",
                ours=tuple(one.seconds for one in ours),
                theirs=tuple(one.seconds for one in scripts),
                less_is_better=True,
                target=TARGET,
            ),
            *_split("training, wall seconds", "training", ours, scripts),
            *_split("validation, wall seconds", "validation", ours, scripts),
        ),
        figures=tuple(figures),
    )


def _split(
    what: str, name: str, ours: Sequence[Spent], scripts: Sequence[Spent]
) -> tuple[Comparison]:
    return (
        Comparison(
            what=what,
            other="the plain script",
            unit="s",
            ours=tuple(getattr(one, name) / one.slots for one in ours),
            theirs=tuple(getattr(one, name) / one.slots for one in scripts),
            less_is_better=True,
        ),
    )


def _shares(whose: str, shares: Sequence[Mapping[str, float]]) -> list[Figure]:
    return [
        Figure(name=f"{whose}: {part}", unit="% of wall", values=tuple(one[part] for one in shares))
        for part in shares[0]
    ]


if __name__ == "__main__":
    run_alone(run, __doc__)
