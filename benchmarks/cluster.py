"""How a search does on several machines: until its first epoch, by their number, after a loss.

The machines are *hosts* made of Linux namespaces on this one (tests/cluster/hosts.py; needs root),
launched over ssh with cluster/on-premise.yaml. They share its cores, so that a trial that computes
would gain nothing from a second host, and the seconds of whatever starts are too long.

  start     from `ray up` on three hosts, the submission of a search of prepared data included, to
            the first epoch of its first trial
  recovery  from kill -9 of a host in the midst of that search to the next epoch of each trial that
            ran there, on another one
  scaling   a search of ours on 1, 2 and 3 hosts of two CPUs, whose trials sleep through their
            epochs; efficiency is the wall time on one host over that on n, over n. The start of
            the workers' processes is part of it, that of the cluster is not

python -m benchmarks.cluster
python -m benchmarks.cluster scaling --trials 24 --epochs 4 --seconds 5
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from benchmarks.overhead import our_search
from benchmarks.stand_in import metrics_of
from strokeseg import cli
from strokeseg.compute.allotment import allot, cluster_nodes
from strokeseg.compute.session import ray_session
from strokeseg.records.experiment import Experiment, open_experiment
from tests.cluster.hosts import Host, hosts_on_a_switch, missing
from tests.cluster.on_premise import Cluster, reports

PARTS = ("start", "recovery", "scaling")
NODES = ("head", "first", "second")
LAPTOP = "laptop"
PATIENCE_SECONDS = 300.0
SECONDS_BETWEEN_LOOKS = 0.05
EXPERIMENT = """\
data: {phantom: {cases: 6, spacing_mm: 6.0}}
splits: {folds: 2, test_share: 0.0}
search:
  {space: space.yaml, trials: 4, epochs: 1000, grace_epochs: 1000, slices_per_epoch: 16,
   confirm_trials: 0}
"""
SPACE = """\
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {value: 8}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--trials", type=int, default=24, help="of scaling")
    parser.add_argument("--epochs", type=int, default=4, help="of such a trial")
    parser.add_argument("--seconds", type=float, default=5.0, help="of such an epoch")
    parser.add_argument("--sleep-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sleep_in:
        found = search_asleep(options.sleep_in, options.trials, options.epochs, options.seconds)
        (options.sleep_in / "found.json").write_text(json.dumps(found))
        return
    parts = options.parts or PARTS
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"parts must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    if reason := missing():
        sys.exit(f"hosts of namespaces cannot be made here: {reason}")
    if {"start", "recovery"} & set(parts):
        measure_start_and_recovery()
    if "scaling" in parts:
        measure_scaling(options.trials, options.epochs, options.seconds)


@contextmanager
def hosts_and_folder() -> Iterator[tuple[dict[str, Host], Path]]:
    """Make hosts, and a folder that all of them see."""
    # Ray's sockets need short names.
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as place:
        folder = Path(place) / "h"
        with hosts_on_a_switch((*NODES, LAPTOP), folder) as hosts:
            yield hosts, folder / "shared"


def measure_start_and_recovery() -> None:
    with hosts_and_folder() as (hosts, shared):
        options, experiment = prepared_experiment(shared)
        cluster = Cluster(hosts, NODES, LAPTOP)
        began = time.monotonic()
        cluster.up()
        joined = time.monotonic()
        command = f"strokeseg search --axis axial {options}"
        cluster.exec(f"ray job submit --no-wait --submission-id start -- {command}")
        submitted = time.monotonic()
        wait_for(lambda: epochs(experiment))
        first = time.monotonic()
        print(
            f"start: {first - began:.0f} s from ray up to the first epoch: {joined - began:.0f} s "
            f"until three nodes had joined, {submitted - joined:.0f} s to submit the search, "
            f"{first - submitted:.0f} s until its first epoch",
            flush=True,
        )
        trials = experiment.config.search.trials
        wait_for(lambda: sum(count > 1 for count in epochs(experiment).values()) == trials)
        print_recovery([hosts[name] for name in NODES[1:]], experiment)


def print_recovery(workers: Sequence[Host], experiment: Experiment) -> None:
    """Kill the first of some hosts that trains, and print when trials report again."""
    running = {host: count for host in workers if (count := trial_processes(host))}
    host, lost = next(iter(running.items()))
    host.kill()
    killed = time.monotonic()
    before, next_epoch = epochs(experiment), {}
    while len(next_epoch) < len(before):
        if time.monotonic() > killed + PATIENCE_SECONDS:
            raise RuntimeError("the trials of the host that was killed did not go on")
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for trial, count in epochs(experiment).items():
            if count > before[trial]:
                next_epoch.setdefault(trial, time.monotonic() - killed)
    seconds = sorted(next_epoch.values())
    # Those that were lost wait for what the others need not.
    others, own = seconds[: len(seconds) - lost], seconds[len(seconds) - lost :]
    print(
        f"recovery: {host.name} ran {lost} of {len(seconds)} trials; their next epochs came "
        f"{', '.join(f'{one:.1f}' for one in own)} s after it was killed, those of the others "
        f"{', '.join(f'{one:.1f}' for one in others)} s",
        flush=True,
    )


def measure_scaling(trials: int, epochs: int, seconds: float) -> None:
    print(f"scaling: {trials} trials of {epochs} epochs of {seconds:g} s")
    alone = None
    for count in range(1, len(NODES) + 1):
        with hosts_and_folder() as (hosts, shared):
            shared.mkdir()
            cluster = Cluster(hosts, NODES[:count], LAPTOP)
            cluster.up()
            command = f"python -m benchmarks.cluster --sleep-in {shared} --trials {trials}"
            command += f" --epochs {epochs} --seconds {seconds}"
            cluster.exec(f"ray job submit --submission-id scaling -- {command}")
            found = json.loads((shared / "found.json").read_text())
        alone = alone or found["wall"]
        print(
            f"  {count} hosts, {found['concurrent']} trials at once: {found['wall']:.1f} s, "
            f"efficiency {alone / found['wall'] / count:.3f}; without a start and an end it "
            f"would be {found['ideal']:.1f} s",
            flush=True,
        )


def search_asleep(folder: Path, trials: int, epochs: int, seconds: float) -> dict[str, float]:
    """Search in the Ray that is joined, one CPU a trial, and return how long that took."""
    with cli.logging_to(folder / "search.log"), ray_session(folder):
        allotment = allot(cluster_nodes(), trials, None)
        trainable = tune.with_resources(
            tune.with_parameters(
                sleep_through,
                ready=[metrics_of(epoch) for epoch in range(1, epochs + 1)],
                seconds=seconds,
            ),
            {"CPU": allotment.cpus},
        )
        run, _ = our_search(folder, trials, epochs, trainable, allotment)
        began = time.perf_counter()
        run()
        wall = time.perf_counter() - began
    rounds = -(-trials // allotment.concurrent)
    return {"wall": wall, "concurrent": allotment.concurrent, "ideal": rounds * epochs * seconds}


def sleep_through(
    proposal: Mapping[str, Any], *, ready: Sequence[Mapping[str, Any]], seconds: float
) -> None:
    """Report what a trial reports, asleep while it would train.

    They come ready, so that the workers need to import nothing to make them.
    """
    for metrics in ready:
        time.sleep(seconds)
        tune.report(dict(metrics))


def prepared_experiment(shared: Path) -> tuple[str, Experiment]:
    """Prepare simulated cases on the storage; return a command's options and the experiment."""
    config = shared / "start" / "experiment.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(EXPERIMENT)
    (config.parent / "space.yaml").write_text(SPACE)
    options = ["--experiment", str(config), "--storage", str(shared / "runs")]
    command = [sys.executable, "-m", "strokeseg.prepare", *options]
    subprocess.run(command, check=True, capture_output=True)
    return shlex.join(options), open_experiment(options[1], options[3])


def epochs(experiment: Experiment) -> Counter[int]:
    """How many epochs each trial has reported."""
    return Counter(trial for trial, _ in reports(experiment, "axial"))


def trial_processes(host: Host) -> int:
    return int(host.run("pgrep", "--count", "--full", "^ray::ImplicitFunc", check=False).stdout)


def wait_for(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE_SECONDS:g} s in vain")
        time.sleep(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    main()
