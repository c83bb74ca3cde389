"""What searching axes side by side saves: the same trials, together and one axis after another.

Trials that sleep for --seconds and report --epochs times stand in for those that train, on
simulated GPUs. Each way starts a Ray of its own, and its processes, as a command would.

python -m benchmarks.axes --trials 20 --gpus 64 --seconds 120
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune

from benchmarks.overhead import SPACE, experiment_in, no_slices, start_ray
from benchmarks.stand_in import metrics_of
from strokeseg.compute.allotment import Allotment
from strokeseg.imaging.slices import AXES
from strokeseg.records.config import SearchConfig
from strokeseg.tuning.monitor import SearchMonitor, StudyMonitor
from strokeseg.tuning.running import _fit
from strokeseg.tuning.searcher import StudySearcher
from strokeseg.tuning.space_file import load_space
from strokeseg.tuning.study import open_study


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="of each axis")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="of a trial")
    parser.add_argument("--epochs", type=int, default=4, help="reports a trial")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ways = {"one axis after another": [(axis,) for axis in AXES], "side by side": [AXES]}
    seconds = {}
    for name, searches in ways.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            for axes in searches:
                search(Path(folder), axes, options)
        seconds[name] = time.perf_counter() - started
        print(f"{name:24} {seconds[name]:8.1f} s", flush=True)
    before, now = seconds.values()
    print(f"{'ratio':24} {now / before:8.2f}")


def sleeping(proposal: Mapping[str, Any], *, seconds: float, epochs: int) -> None:
    """Report as many epochs as a trial has, each after its share of the seconds."""
    for epoch in range(1, epochs + 1):
        time.sleep(seconds / epochs)
        tune.report(metrics_of(epoch))


def search(folder: Path, axes: Sequence[str], options: argparse.Namespace) -> None:
    """Search axes in one run of Tune."""
    (folder / "space.yaml").write_text(SPACE)
    experiment = experiment_in(folder)
    data = no_slices(folder)
    budget = SearchConfig(
        trials=options.trials,
        epochs=options.epochs,
        grace_epochs=options.epochs,
        confirm_trials=0,
    )
    start_ray(options.gpus)
    with ExitStack() as opened:
        studies = {
            axis: opened.enter_context(
                open_study(
                    *(experiment, axis, data),
                    budget=budget,
                    space=load_space(folder / "space.yaml"),
                    find_encoders=dict,
                )
            )
            for axis in axes
        }
        ledgers = {axis: study.ledger for axis, study in studies.items()}
        searcher = StudySearcher(ledgers)
        monitors = {
            axis: StudyMonitor(
                ledger=study.ledger,
                space=study.space,
                leaderboard_csv=experiment.leaderboard_csv(axis),
                tensorboard_folder=experiment.tensorboard_folder(axis),
                trials_folder=experiment.trials_folder(axis),
                kept=lambda rows: set(),
            )
            for axis, study in studies.items()
        }
        monitor = SearchMonitor(monitors, ledgers, searcher, lambda *progress: None)
        trial = partial(sleeping, seconds=options.seconds, epochs=options.epochs)
        trainable = tune.with_resources(trial, {"CPU": 1, "GPU": 1})
        allotment = Allotment(cpus=1, gpus=1, concurrent=options.gpus)
        scratch = [experiment.search_folder(axis) / "tune" for axis in axes]
        _fit(trainable, ledgers, searcher, monitor, allotment, scratch)
        done = [row for ledger in ledgers.values() for row in ledger.rows()]
        if [row.state for row in done] != ["COMPLETE"] * (len(axes) * options.trials):
            raise RuntimeError(f"not all trials are complete: {done}")
    ray.shutdown()


if __name__ == "__main__":
    main()
