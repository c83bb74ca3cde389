"""What a trial costs beyond its training, and how trials share the cores.

Start-up: a search of short trials; for every trial the time between Optuna's start and end of
it, less the seconds that it spent in its epochs. Sharing: training slices a second of two
trials of one thread, one of two threads, and two of two threads, on the same two cores.

python -m benchmarks.trials start
python -m benchmarks.trials threads
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna
import torch

from strokeseg.config import TrialConfig
from strokeseg.leaderboard import read_leaderboard
from strokeseg.learning.networks import build_network
from strokeseg.learning.slice_set import slices_in_memory
from strokeseg.learning.training import Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("start", "threads"))
    options = parser.parse_args()
    if options.what == "start":
        measure_start()
    else:
        measure_threads()


def measure_start(trials: int = 10) -> None:
    with tempfile.TemporaryDirectory() as storage:
        folder = Path(storage) / "experiments" / "start"
        folder.mkdir(parents=True)
        space = folder / "space.yaml"
        space.write_text(
            "parameters:\n  encoder: {value: resnet18}\n  encoder_depth: {value: 3}\n"
            "  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}\n"
        )
        (folder / "experiment.yaml").write_text(
            "data: {phantom: {cases: 8, spacing_mm: 6.0}}\n"
            f"search: {{space: space.yaml, trials: {trials}, epochs: 1, slices_per_epoch: 32}}\n"
        )
        command = [sys.executable, "-m", "strokeseg.search", "--axis", "axial"]
        command += ["--experiment", str(folder), "--storage", storage]
        subprocess.run(command, check=True, capture_output=True)
        search = Path(storage) / "start" / "search" / "axial"
        seconds = {row.trial: row.seconds for row in read_leaderboard(search / "leaderboard.csv")}
        storage_backend = optuna.storages.journal.JournalFileBackend(str(search / "journal.log"))
        study = optuna.load_study(
            study_name="axial", storage=optuna.storages.JournalStorage(storage_backend)
        )
        costs = [
            (trial.datetime_complete - trial.datetime_start).total_seconds() - seconds[trial.number]
            for trial in study.trials
        ]
    print("seconds of a trial beyond its epochs, in order of the trials:")
    print("  " + ", ".join(f"{cost:.2f}" for cost in costs))
    print(f"  median after the first two (one on each worker): {np.median(costs[2:]):.2f} s")


def measure_threads() -> None:
    ratios = {}
    for trials, threads in ((1, 2), (2, 1), (2, 2)):
        with ProcessPoolExecutor(trials, mp_context=get_context("spawn")) as pool:
            list(pool.map(slices_per_second, [threads] * trials, [1] * trials))
            rates = list(pool.map(slices_per_second, [threads] * trials, [3] * trials))
        ratios[trials, threads] = sum(rates)
        print(f"{trials} trials of {threads} threads: {sum(rates):.1f} slices/s together")
    print(f"two of one thread against one of two: {ratios[2, 1] / ratios[1, 2]:.2f}")
    print(f"two of two threads against two of one: {ratios[2, 2] / ratios[2, 1]:.2f}")


def slices_per_second(threads: int, epochs: int) -> float:
    """Train a resnet18 U-Net of depth 5 on 128 slices of 4 x 64 x 64, batch 16."""
    torch.set_num_threads(threads)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(128, 4, 64, 64)).astype(np.float16)
    masks = (generator.random((128, 64, 64)) > 0.9).astype(np.uint8)
    slices = slices_in_memory([images], [masks], np.array(["1"] * 128))
    config = TrialConfig(encoder="resnet18")
    network = build_network(encoder="resnet18", encoder_depth=5, channels=4)
    training = Training(network, slices, slices, config, epochs=epochs)
    results = list(training.run())
    return sum(result.slices for result in results) / sum(r.train_seconds for r in results)


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"({time.perf_counter() - start:.0f} s)")
