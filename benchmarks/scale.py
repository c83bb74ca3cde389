"""How far one driver carries a study: many instant trials on many simulated GPUs.

A *stand-in* trial reports all its epochs at once and trains nothing. What the driver does, it
does for one trial after the other: its *serial seconds* a trial are all that it does not spend
waiting for Ray, so whatever is measured on more GPUs than CPUs holds for GPUs elsewhere.

  study   our Ledger, StudySearcher, StudyScheduler, Monitor and Tuner under Ray with as many
          simulated GPUs, each a process of about 100 MB, which is there before the study
          begins: fill the memory with care, and give each of them 2 s of two cores to start
  parts   our own part alone, called as Tune calls it with as many trials at once, without Ray
          and with random proposals; and, apart, what TPE takes to propose after so many trials

What real GPUs would do meanwhile, of trials of --minutes: `busy` is the share of their time in
which they train, by the mean-value analysis of a closed queue (N GPUs train for T seconds each,
then wait for one driver that takes s seconds: of n GPUs one waits W(n) = s * (1 + Q(n-1)), where
Q(n) = n * W(n) / (T + W(n)) is the mean queue). `at worst`, when all trials end at one moment and
each GPU waits for half of the others on average, T / (T + s * (N + 1) / 2). `full` is the number
of GPUs from which the driver is the limit whatever they do: T / s.

python -m benchmarks.scale --trials 100 1000 --gpus 8
python -m benchmarks.scale --trials 1000 --gpus 64
python -m benchmarks.scale --parts --trials 100 1000 10000 --gpus 8 64 512

Source:
    Reiser and Lavenberg, Mean-Value Analysis of Closed Multichain Queuing Networks, JACM 1980.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from ray import tune

from benchmarks.measuring import ray_workers_mb, wrapped
from benchmarks.overhead import (
    SPACE,
    our_search,
    our_study,
    start_ray,
    timing_proposals,
)
from benchmarks.stand_in import metrics_of, stand_in, warm_up
from strokeseg.compute.allotment import Allotment
from strokeseg.process.background_timer import background_timer
from strokeseg.tuning.samplers import make_sampler
from strokeseg.tuning.searcher import StudyScheduler
from strokeseg.tuning.space_file import load_space

TPE_HISTORIES = (100, 1000, 3000, 10_000)
TPE_PROPOSALS = 8
SECONDS_BETWEEN_LOOKS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--gpus", type=int, nargs="+", default=[8])
    parser.add_argument("--epochs", type=int, default=4, help="reports a trial")
    parser.add_argument("--minutes", type=float, default=10, help="of a trial that trains")
    parser.add_argument("--parts", action="store_true", help="our part alone, and TPE's")
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure_study(options.trials[0], options.gpus[0], options.epochs)))
        return
    print_header(options.minutes)
    for gpus in options.gpus:
        for trials in options.trials:
            if options.parts:
                found = measure_parts(trials, gpus, options.epochs)
            else:
                found = in_own_process(trials, gpus, options.epochs)
            print_row(trials, gpus, found, 60 * options.minutes)
    if options.parts:
        for history in TPE_HISTORIES:
            if history <= max(options.trials):
                print(
                    f"TPE after {history} trials: {1000 * measure_tpe(history):.0f} ms a proposal"
                )


def print_header(minutes: float) -> None:
    print("              ms/trial:                          late to early  of trials of", end=" ")
    print(f"{minutes:g} minutes:")
    print("trials gpus      wall   serial      CPU  sampler   serial CPU    busy at worst    full")


def print_row(trials: int, gpus: int, found: dict[str, float], seconds: float) -> None:
    serial = found["serial"] / trials
    per_trial = [1000 * found[key] / trials for key in ("wall", "serial", "cpu", "sampler")]
    worst = seconds / (seconds + serial * (gpus + 1) / 2)
    print(
        f"{trials:6d} {gpus:4d}",
        *(f"{number:8.1f}" for number in per_trial),
        f"{found['growth']:12.2f} {busy(gpus, serial, seconds):7.2%} {worst:8.2%} "
        f"{seconds / serial:7.0f}",
        f"  {found['workers_mb']:.0f} MB of workers" if "workers_mb" in found else "",
        flush=True,
    )


def busy(gpus: int, serial: float, seconds: float) -> float:
    """The share of their time in which GPUs train that one driver serves; see the module."""
    queue = 0.0
    for number in range(1, gpus + 1):
        wait = serial * (1 + queue)
        queue = number * wait / (seconds + wait)
    return seconds / (seconds + wait)


def in_own_process(trials: int, gpus: int, epochs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--only", "--trials", str(trials)]
    command += ["--gpus", str(gpus), "--epochs", str(epochs)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_study(trials: int, gpus: int, epochs: int) -> dict[str, float]:
    """Run a study under Ray; return seconds, growth, and the megabytes of a worker."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    start_ray(gpus)
    warm_up(gpus)
    trainable = tune.with_resources(
        tune.with_parameters(stand_in, epochs=epochs), {"CPU": 1, "GPU": 1}
    )
    allotment = Allotment(cpus=1, gpus=1, concurrent=gpus)
    with tempfile.TemporaryDirectory() as name, timing_proposals() as proposals:
        run, _ = our_search(Path(name), trials, epochs, trainable, allotment)
        with timing_waits() as waited, watching_workers() as memory:
            clock = time.perf_counter(), time.thread_time()
            run()
            wall, cpu = time.perf_counter() - clock[0], time.thread_time() - clock[1]
    ray.shutdown()
    return {
        "wall": wall,
        "serial": wall - sum(waited),
        "cpu": cpu,
        "sampler": sum(proposal.seconds for proposal in proposals),
        "growth": growth([later.cpu_before - one.cpu_after for one, later in pairwise(proposals)]),
        "workers_mb": memory["workers_mb"],
    }


def measure_parts(trials: int, gpus: int, epochs: int) -> dict[str, float]:
    """Run our own part of a study, `gpus` trials at once; return seconds and growth."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as name,
        timing_proposals() as proposals,
        our_study(Path(name), trials, epochs, "random") as (ledger, searcher, monitor, _),
    ):
        scheduler = StudyScheduler({"axial": ledger}, searcher)
        wall, cpu = time.perf_counter(), time.thread_time()
        running: deque[tuple[Any, int]] = deque()
        ends: list[float] = []
        asked = 0
        while asked < trials or running:
            while asked < trials and len(running) < gpus:
                trial = started(f"trial-{asked}")
                searcher.suggest(trial.trial_id)
                monitor.on_trial_start(asked, [], trial)
                running.append((trial, 1))
                asked += 1
            # The trial that reported the longest ago.
            trial, epoch = running.popleft()
            scheduler.on_trial_result(None, trial, metrics_of(epoch))
            monitor.on_trial_result(epoch, [], trial, metrics_of(epoch))
            monitor.on_step_end(epoch, [])
            if epoch < epochs:
                running.append((trial, epoch + 1))
                continue
            searcher.on_trial_complete(trial.trial_id, metrics_of(epoch))
            ends.append(time.process_time())
        monitor.tidy()
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return {
        "wall": wall,
        "serial": wall,
        "cpu": cpu,
        "sampler": sum(proposal.seconds for proposal in proposals),
        "growth": growth([later - earlier for earlier, later in pairwise(ends)]),
    }


def started(name: str) -> Any:
    """A trial as far as our callbacks look at Tune's."""
    failures = SimpleNamespace(num_failures=0)
    return SimpleNamespace(trial_id=name, max_failures=0, run_metadata=failures)


def growth(seconds: list[float]) -> float:
    """How many times the CPU of an early trial a late one takes, the sampler's left out."""
    fifth = len(seconds) // 5
    return sum(seconds[-fifth:]) / sum(seconds[fifth : 2 * fifth])


def measure_tpe(history: int) -> float:
    """Return the seconds in which TPE proposes after a history of complete trials."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "space.yaml").write_text(SPACE)
        space = load_space(Path(name) / "space.yaml")
    study = optuna.create_study(direction="maximize")
    study.sampler = make_sampler("random", seed=0, trials=history)
    for index in range(history):
        trial = study.ask()
        space.ask(trial)
        study.tell(trial, (index * 7919 % 1000) / 1000)
    spent = 0.0
    for index in range(TPE_PROPOSALS):
        study.sampler = make_sampler("tpe", seed=index, trials=history)
        trial = study.ask()
        start = time.perf_counter()
        space.ask(trial)
        spent += time.perf_counter() - start
        study.tell(trial, 0.5)
    return spent / TPE_PROPOSALS


@contextmanager
def timing_waits() -> Iterator[list[float]]:
    """Collect how long this process waits for Ray: Tune waits in one place."""
    waited: list[float] = []
    wait: Callable[..., Any] = ray.wait

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        ready = wait(*arguments, **options)
        waited.append(time.perf_counter() - start)
        return ready

    with wrapped(ray, wait=timed):
        yield waited


@contextmanager
def watching_workers() -> Iterator[dict[str, float]]:
    """Note the most memory that Ray's workers have of their own, all together."""
    largest = {"workers_mb": 0.0}

    def look() -> None:
        largest["workers_mb"] = max(largest["workers_mb"], sum(ray_workers_mb()))

    with background_timer(look, SECONDS_BETWEEN_LOOKS):
        yield largest


if __name__ == "__main__":
    main()
