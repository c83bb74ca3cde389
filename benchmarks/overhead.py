"""What our search costs the driver beyond plain Tune, with trials that do nothing.

A *stand-in* trial reports all its epochs at once and trains nothing, so that what is left is
Tune, the sampler, the scheduler and, in our search, the journal and the monitor. All trials
score the same: neither successive halving stops any, and every search takes the same reports.

  ours    the study's own Ledger, StudySearcher, StudyScheduler, SearchMonitor and Tuner
  plain   tune.Tuner with OptunaSearch (the same space and sampler), ASHA, Ray's own loggers
  bare    the same without loggers

Every search is a process of its own with eight simulated GPUs, hence eight trials at once; the
three run side by side, so that other load on the machine is the same for all. `sampler` is the
time in which Optuna proposes, which grows with the number of trials in all three. `growth` is
how many times the driver CPU of an early trial a late one takes, the sampler's left out.

`--parts` measures our own part alone, without Ray: what the ledger and the monitor take when they
are called as Tune calls them, trial after trial, in one process and at any number of trials.

python -m benchmarks.overhead --trials 100 300 1000
python -m benchmarks.overhead --parts --trials 100 300 1000
python -m benchmarks.overhead --profile /tmp/overhead --trials 300
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.measuring import wrapped
from benchmarks.stand_in import metrics_of, stand_in, warm_up
from strokeseg.compute.allotment import Allotment
from strokeseg.records.config import DataConfig, ExperimentConfig, SearchConfig
from strokeseg.records.experiment import Experiment
from strokeseg.records.leaderboard import trials_to_keep
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.monitor import SearchMonitor, StudyMonitor
from strokeseg.tuning.running import _fit
from strokeseg.tuning.searcher import StudyScheduler, StudySearcher
from strokeseg.tuning.space import Space
from strokeseg.tuning.space_file import load_space
from strokeseg.tuning.study import PreparedSlices, open_study

SEARCHES = ("ours", "plain", "bare")
SLOTS = 8
SPACE = """\
parameters:
  encoder: {choices: [resnet18, resnet34]}
  encoder_depth: {low: 3, high: 5}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
  weight_decay: {low: 1.0e-6, high: 1.0e-2, log: true}
  dice_weight: {low: 0.0, high: 1.0}
  cross_entropy_weight: {low: 0.1, high: 1.0}
  focal_weight: {low: 0.0, high: 1.0}
  batch_size: {choices: [8, 16, 32]}
  augmentation: {low: 0.0, high: 1.0}
  lesion_fraction: {low: 0.3, high: 0.9}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[100])
    parser.add_argument("--epochs", type=int, default=4, help="reports a trial")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=SEARCHES)
    parser.add_argument("--parts", action="store_true", help="our part alone, without Ray")
    parser.add_argument("--profile", type=Path, help="prefix of files for pstats")
    parser.add_argument("--only", choices=SEARCHES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.trials[0], options.epochs, options.profile)))
        return
    if options.parts:
        print("our part, ms/trial: wall, CPU, sampler (wall); of the last fifth: CPU")
        for trials in options.trials:
            print_parts(trials, options.epochs, options.profile)
        return
    print("              ms/trial:                           growth   to plain:")
    print("trials search      wall driver CPU    sampler  reports            wall (driver CPU)")
    for trials in options.trials:
        print_ratios(trials, options)


def print_ratios(trials: int, options: argparse.Namespace) -> None:
    rounds = [side_by_side(trials, options) for _ in range(options.repeats)]
    middle = {
        search: {key: median(round[search][key] for round in rounds) for key in rounds[0][search]}
        for search in options.searches
    }
    for search, result in middle.items():
        ratio = ""
        if "plain" in middle:
            wall, cpu = (result[key] / middle["plain"][key] for key in ("wall", "cpu"))
            ratio = f"{wall:.2f} ({cpu:.2f})"
        per_trial = [1000 * result[key] / trials for key in ("wall", "cpu", "sampler")]
        print(
            f"{trials:6d} {search:6s} {per_trial[0]:10.0f} {per_trial[1]:10.0f} "
            f"{per_trial[2]:10.1f} {result['reports']:8.0f} {result['growth']:8.2f}  {ratio}",
            flush=True,
        )


def side_by_side(trials: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run the searches at the same time, so that other load on the machine is equal for all."""
    running = {search: start(search, trials, options) for search in options.searches}
    results = {}
    for search, process in running.items():
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{search} ended with exit code {process.returncode}")
        results[search] = json.loads(out.splitlines()[-1])
    return results


def start(search: str, trials: int, options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.overhead", "--only", search]
    command += ["--trials", str(trials), "--epochs", str(options.epochs)]
    if options.profile:
        command += ["--profile", f"{options.profile}-{search}-{trials}.pstats"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def measure(search: str, trials: int, epochs: int, profile: Path | None) -> dict[str, float]:
    """Run one search; return its seconds of wall time, driver CPU and sampler, and reports."""
    # What logging_to sends to a file in a command.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    start_ray(SLOTS)
    warm_up(SLOTS)
    trainable = tune.with_resources(
        tune.with_parameters(stand_in, epochs=epochs), {"CPU": 1, "GPU": 1}
    )
    allotment = Allotment(cpus=1, gpus=1, concurrent=SLOTS)
    with tempfile.TemporaryDirectory() as name, timing_proposals() as proposals:
        folder = Path(name)
        run, reports = (
            our_search(folder, trials, epochs, trainable, allotment)
            if search == "ours"
            else plain_search(folder, trials, epochs, trainable, loggers=search == "plain")
        )
        profiler = cProfile.Profile() if profile else None
        wall, cpu = time.perf_counter(), time.process_time()
        profiler.runcall(run) if profiler else run()
        result = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        result |= {"sampler": sum(proposal.seconds for proposal in proposals)}
        result |= {"reports": reports(), "growth": growth(proposals)}
    if profiler is not None:
        profiler.dump_stats(str(profile))
    ray.shutdown()
    return result


def start_ray(gpus: int) -> None:
    """Start a Ray with so many simulated GPUs, and a CPU for each."""
    ray.init(
        address="local",
        num_cpus=gpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )


def growth(proposals: list[Proposal]) -> float:
    """How many times the driver CPU of an early trial a late one takes, the sampler left out."""
    fifth = len(proposals) // 5
    early, late = (
        sum(after.cpu_before - before.cpu_after for before, after in pairwise(part))
        for part in (proposals[fifth : 2 * fifth], proposals[-fifth:])
    )
    return late / early


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """How long Optuna took to propose a trial, and the driver's CPU clock, in seconds."""

    seconds: float
    cpu_before: float
    cpu_after: float


def print_parts(trials: int, epochs: int, profile: Path | None) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ends: list[float] = []
    with (
        tempfile.TemporaryDirectory() as name,
        timing_proposals() as proposals,
        our_study(Path(name), trials, epochs) as (ledger, searcher, monitor, _),
    ):
        scheduler = StudyScheduler({"axial": ledger}, searcher)
        wall, cpu = time.perf_counter(), time.process_time()

        def run() -> None:
            for index in range(trials):
                one_trial(f"trial-{index}", searcher, scheduler, monitor, epochs)
                ends.append(time.process_time())
            monitor.tidy()

        profiler = cProfile.Profile() if profile else None
        profiler.runcall(run) if profiler else run()
        if profiler is not None:
            profiler.dump_stats(f"{profile}-parts-{trials}.pstats")
        per_trial = [
            1000 * seconds / trials
            for seconds in (
                time.perf_counter() - wall,
                time.process_time() - cpu,
                sum(proposal.seconds for proposal in proposals),
            )
        ]
    late = [proposal.cpu_after - proposal.cpu_before for proposal in proposals[-(trials // 5) :]]
    last = 1000 * (ends[-1] - ends[-len(late) - 1]) / len(late)
    sampler = 1000 * sum(late) / len(late)
    print(
        f"{trials:6d} {per_trial[0]:8.1f} {per_trial[1]:8.1f} {per_trial[2]:8.1f}; {last:8.1f}, "
        f"of which the sampler {sampler:.1f}",
        flush=True,
    )


def one_trial(
    name: str,
    searcher: StudySearcher,
    scheduler: StudyScheduler,
    monitor: SearchMonitor,
    epochs: int,
) -> None:
    """Ask and report as Tune does for a trial, in its order."""
    trial: Any = SimpleNamespace(
        trial_id=name, max_failures=0, run_metadata=SimpleNamespace(num_failures=0)
    )
    searcher.suggest(name)
    for epoch in range(1, epochs + 1):
        scheduler.on_trial_result(None, trial, metrics_of(epoch))
        monitor.on_trial_result(epoch, [], trial, metrics_of(epoch))
        monitor.on_step_end(epoch, [])
    searcher.on_trial_complete(name, metrics_of(epochs))


@contextmanager
def timing_proposals() -> Iterator[list[Proposal]]:
    """Collect every call in which a space lets Optuna choose."""
    proposals: list[Proposal] = []
    ask = Space.ask

    def timed(space: Space, trial: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        config = ask(space, trial)
        seconds = time.perf_counter() - wall
        proposals.append(Proposal(seconds=seconds, cpu_before=cpu, cpu_after=time.process_time()))
        return config

    with wrapped(Space, ask=timed):
        yield proposals


def propose(space: Any, trial: Any) -> None:
    """Let Optuna choose, as OptunaSearch wants it: returns None."""
    space.ask(trial)


@contextmanager
def our_study(
    folder: Path, trials: int, epochs: int, sampler: str = "tpe"
) -> Iterator[tuple[Ledger, StudySearcher, SearchMonitor, Experiment]]:
    """Open a study of ours in a folder, with all that goes on in its driver."""
    (folder / "space.yaml").write_text(SPACE)
    experiment = experiment_in(folder)
    data = no_slices(folder)
    with open_study(
        experiment,
        "axial",
        data,
        # Confirmations would be trials beyond those of the others.
        budget=SearchConfig(
            trials=trials, epochs=epochs, grace_epochs=1, confirm_trials=0, sampler=sampler
        ),
        space=load_space(folder / "space.yaml"),
        find_encoders=dict,
    ) as study:
        ledgers = {"axial": study.ledger}
        searcher = StudySearcher(ledgers)
        monitor = StudyMonitor(
            ledger=study.ledger,
            space=study.space,
            leaderboard_csv=experiment.leaderboard_csv("axial"),
            tensorboard_folder=experiment.tensorboard_folder("axial"),
            trials_folder=experiment.trials_folder("axial"),
            kept=lambda rows: trials_to_keep(rows, 1),
        )
        shown = SearchMonitor({"axial": monitor}, ledgers, searcher, lambda *progress: None)
        yield study.ledger, searcher, shown, experiment


def our_search(
    folder: Path, trials: int, epochs: int, trainable: object, allotment: Allotment
) -> tuple[Callable[[], object], Callable[[], int]]:
    """Open a study; return a call that runs its search, and one that counts the reports."""
    opened = ExitStack()
    ledger, searcher, monitor, experiment = opened.enter_context(our_study(folder, trials, epochs))

    def run() -> None:
        scratch = experiment.search_folder("axial") / "tune"
        _fit(trainable, {"axial": ledger}, searcher, monitor, allotment, [scratch])
        monitor.tidy()
        opened.close()

    return run, lambda: sum(row.epochs_run for row in ledger.rows())


def no_slices(folder: Path) -> PreparedSlices:
    """What a study whose trials train nothing needs to know of its data."""
    return PreparedSlices(
        folder=folder / "slices",
        folds=(("1",), ("2",)),
        validation_fold=0,
        spacing_mm=(1.0, 1.0, 1.0),
        fingerprint="none",
    )


def experiment_in(folder: Path) -> Experiment:
    return Experiment(
        name="overhead",
        config=ExperimentConfig(data=DataConfig(path="cases")),
        config_path=folder / "experiment.yaml",
        folder=folder / "overhead",
        data_path=folder / "cases",
    )


def plain_search(
    folder: Path, trials: int, epochs: int, trainable: object, *, loggers: bool
) -> tuple[Callable[[], object], Callable[[], int]]:
    (folder / "space.yaml").write_text(SPACE)
    space = load_space(folder / "space.yaml")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0" if loggers else "1"

    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="dice",
            mode="max",
            search_alg=OptunaSearch(
                # Pickled by Ray with every state it saves, so no function in a function.
                space=partial(propose, space),
                metric="dice",
                mode="max",
                sampler=TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=10),
            ),
            scheduler=ASHAScheduler(
                time_attr="epoch", max_t=epochs, grace_period=1, reduction_factor=3
            ),
            num_samples=trials,
            max_concurrent_trials=SLOTS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), verbose=0),
    )
    ended: list[Any] = []

    def run() -> None:
        ended.append(tuner.fit())

    def reports() -> int:
        return sum(result.metrics["training_iteration"] for result in ended[0])

    return run, reports


if __name__ == "__main__":
    main()
