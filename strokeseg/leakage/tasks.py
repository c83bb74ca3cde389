"""The runs of a measurement of leakage as Ray tasks, side by side like trials.

A *stream* is what one task tells the driver while it works: the number of every epoch
that is done, then its scores, or why there is none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import ray
import torch
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError
from torch import Tensor

from strokeseg.compute.allotment import allot
from strokeseg.compute.autoscaling import await_node
from strokeseg.errors import UserError
from strokeseg.leakage.divisions import (
    BestWeightsScore,
    Division,
    divide_by_patient,
    divide_by_slice,
    measure,
)
from strokeseg.leakage.runs import Configuration, LeakageScoreStore, Pool, Run
from strokeseg.process.progress import Show
from strokeseg.records.leakage import LeakageScores
from strokeseg.training.loop import Training
from strokeseg.training.setup import new_training
from strokeseg.training.slice_set import SliceSet
from strokeseg.training.validation import TrialFailure
from strokeseg.tuning.feed import Feed, open_feed
from strokeseg.tuning.searcher import RETRIES_OF_A_LOST_PROCESS
from strokeseg.tuning.trial_slices import slices_of

_LOST_PROCESS = (WorkerCrashedError, NodeDiedError, OutOfMemoryError)


def do_runs(
    runs: Sequence[Run],
    configurations: Sequence[Configuration],
    pool: Pool,
    store: LeakageScoreStore,
    *,
    gpus_per_run: float | None,
    show: Show,
) -> dict[Run, str]:
    """Do runs in the Ray that this process is connected to, and keep each when it is done.

    Args:
        runs: What to do, one or more.
        configurations: All that the runs name.
        store: Where scores are kept.
        gpus_per_run: As asked for; None for one, or for none where there are none.
        show: Called with the epochs done, of how many, and a note.

    Returns:
        Why runs failed, by run.

    Raises:
        UserError: When the cluster lacks what the runs ask for, or the slices do not fit it.
    """
    epochs = sum(run.epochs for run in runs)
    nodes = await_node(gpus_per_run or 0, lambda note: show(0, epochs, note))
    allotment = allot(nodes, len(runs), gpus_per_run)
    show(0, epochs, "reading the slices")
    cases = [*pool.cases, *pool.unseen_cases]
    feed = open_feed(pool.slices_folder, pool.axis, cases, gpus=allotment.gpus)
    weights = {
        configuration.name: ray.put(configuration.weights and configuration.weights.tensors)
        for configuration in configurations
    }
    # GPUs given here, and not as an option of the task, end its process with it: the next one may
    # get another GPU, and CUDA stays with its first.
    kind = ray.remote(num_cpus=allotment.cpus, num_gpus=allotment.gpus)(_do_run)
    task = kind.options(num_returns="streaming", max_retries=RETRIES_OF_A_LOST_PROCESS)
    device = "cuda" if allotment.gpus else "cpu"
    streams = [
        task.remote(run, feed, weights[run.configuration], pool, allotment.cpus, device)
        for run in runs
    ]
    return _collect(dict(zip(streams, runs, strict=True)), store, show)


def _collect(
    streams: Mapping[ray.ObjectRefGenerator, Run], store: LeakageScoreStore, show: Show
) -> dict[Run, str]:
    epochs = dict.fromkeys(streams.values(), 0)
    failures: dict[Run, str] = {}
    done = 0
    waiting = list(streams)
    while waiting:
        (stream, *_), _ = ray.wait(waiting)
        run, item = streams[stream], _next(stream)
        if item is None:
            waiting.remove(stream)
            continue
        if isinstance(item, int):
            # The last epoch is over when the unseen patients are scored.
            epochs[run] = min(item, run.epochs - 1)
        else:
            epochs[run] = run.epochs
            done += 1
            if isinstance(item, LeakageScores):
                store.keep(run, item)
            else:
                failures[run] = item
        total = sum(run.epochs for run in epochs)
        show(sum(epochs.values()), total, f"{done} of {len(streams)} runs done")
    return failures


def _next(stream: ray.ObjectRefGenerator) -> int | LeakageScores | str | None:
    """Return the next item of a stream, or None at its end."""
    try:
        item: int | LeakageScores | str = ray.get(next(stream))
    except StopIteration:
        # Waited for: Ray aborts the process when a task ends that it has given up before.
        return None
    except _LOST_PROCESS as error:
        return f"its process was lost ({type(error).__name__})"
    return item


def _do_run(
    run: Run,
    feed: Feed,
    weights: Mapping[str, Tensor] | None,
    pool: Pool,
    threads: int,
    device: str,
) -> Iterator[int | LeakageScores | str]:
    """Train one run: a stream."""
    started = time.perf_counter()
    torch.set_num_threads(threads)
    try:
        slices = slices_of(feed)
        division = _divide(slices.select(pool.cases), run)
        unseen = slices.select(pool.unseen_cases)
        training = _training(run, division, weights, pool, device)
        for result in measure(training, unseen, torch.device(device)):
            if isinstance(result, BestWeightsScore):
                yield _scores_of(result, division, time.perf_counter() - started)
            else:
                yield result.epoch
    except (TrialFailure, UserError) as failure:
        yield str(failure)


def _divide(slices: SliceSet, run: Run) -> Division:
    if run.level == "patient":
        return divide_by_patient(slices, run.validation_cases)
    return divide_by_slice(slices, run.validation_cases, run.seed)


def _training(
    run: Run,
    division: Division,
    weights: Mapping[str, Tensor] | None,
    pool: Pool,
    device: str,
) -> Training:
    return new_training(
        run.config,
        division.training,
        division.validation,
        axis=pool.axis,
        encoder_weights=weights,
        epochs=run.epochs,
        slices_per_epoch=run.slices_per_epoch,
        device=torch.device(device),
        seed=run.seed,
    )


def _scores_of(score: BestWeightsScore, division: Division, seconds: float) -> LeakageScores:
    return LeakageScores(
        printed_dice=score.printed_dice,
        unseen_dice=score.unseen_dice,
        best_epoch=score.best_epoch,
        training_slices=len(division.training),
        validation_slices=len(division.validation),
        shared_cases=division.shared_cases,
        validation_cases=division.validation_cases,
        lesion_free_cases=division.lesion_free_cases,
        seconds=seconds,
    )
