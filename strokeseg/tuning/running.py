"""A study that is open, run under Tune in the Ray that this process is connected to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError

from strokeseg.config import SearchConfig, Show
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, trials_in
from strokeseg.imaging.slices import AXES
from strokeseg.interrupts import lending_interrupts_to_tune
from strokeseg.leaderboard import LeaderboardRow, trials_to_keep
from strokeseg.mirror import fetch
from strokeseg.tuning.allotment import Allotment, allot
from strokeseg.tuning.autoscaling import await_room, reachable_nodes
from strokeseg.tuning.feed import first_shape, open_feed
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.monitor import Monitor
from strokeseg.tuning.packing import AUTO, Auto, measured_share
from strokeseg.tuning.searcher import RETRIES_OF_A_LOST_PROCESS, StudyScheduler, StudySearcher
from strokeseg.tuning.study import PreparedSlices, Study
from strokeseg.tuning.trial import TrialSettings, run_trial

# Tune's own state is no use to us, since the journal is what we resume from.
_QUIET_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def run_study(
    study: Study,
    experiment: Experiment,
    axis: str,
    data: PreparedSlices,
    *,
    budget: SearchConfig,
    gpus_per_trial: float | Auto | None,
    workers_per_trial: int | None,
    deterministic: bool,
    code_version: str,
    show: Show,
) -> list[LeaderboardRow]:
    """Run what is left of a study, in the Ray that this process is connected to.

    Returns:
        The leaderboard's rows. Trials are left to run if the search was interrupted.

    Raises:
        UserError: When the cluster lacks what the trials ask for.
    """
    ledger = study.ledger
    trials_folder = experiment.trials_folder(axis)
    searcher = StudySearcher(ledger)
    kept = max(experiment.config.ensemble.candidates_per_axis, budget.confirm_trials)
    monitor = Monitor(
        ledger=ledger,
        searcher=searcher,
        space=study.space,
        leaderboard_csv=experiment.leaderboard_csv(axis),
        tensorboard_folder=experiment.tensorboard_folder(axis),
        trials_folder=trials_folder,
        kept=lambda rows: trials_to_keep(rows, kept),
        show=show,
        mirrors=experiment.mirrors,
    )
    allotment = _allotment(
        *(study, data, gpus_per_trial, workers_per_trial),
        one_at_a_time=deterministic,
        show=monitor.show,
    )
    settings = TrialSettings(
        axis=axis,
        epochs=budget.epochs,
        slices_per_epoch=budget.slices_per_epoch,
        seed=budget.seed,
        folds=data.folds,
        validation_fold=None if budget.scoring == "k-fold" else data.validation_fold,
        trials_folder=str(trials_folder),
        tensorboard_folder=str(experiment.tensorboard_folder(axis)),
        allotment=allotment,
        deterministic=deterministic,
        sequences=experiment.config.data.sequences,
        spacing_mm=data.spacing_mm,
        preparation_hash=data.fingerprint,
        code_version=code_version,
        mirrors=experiment.mirrors,
        driver_node=ray.get_runtime_context().get_node_id(),
    )
    monitor.show("reading the slices")
    cases = [case for fold in data.folds for case in fold]
    feed = open_feed(data.folder, axis, cases, gpus=allotment.gpus, mirrors=experiment.mirrors)
    monitor.show("starting the first trials")
    weights = {encoder: ray.put(found) for encoder, found in study.weights.items()}
    bundle = {"CPU": allotment.cpus, "GPU": allotment.gpus}
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, feed=feed, weights=weights, settings=settings),
        tune.PlacementGroupFactory([bundle] * allotment.workers),
    )
    scratch = experiment.search_folder(axis) / "tune"
    with lending_interrupts_to_tune():
        try:
            _fit(trainable, ledger, searcher, monitor, allotment, scratch)
        finally:
            ledger.close()
        monitor.tidy()
        # Weights lie where their trials ran.
        fetch(experiment.mirrors, [trials_folder])
    return ledger.rows()


def _allotment(
    study: Study,
    data: PreparedSlices,
    gpus_per_trial: float | Auto | None,
    workers_per_trial: int | None,
    *,
    one_at_a_time: bool,
    show: Callable[[str], None],
) -> Allotment:
    nodes = reachable_nodes()
    trials = 1 if one_at_a_time else max(study.ledger.remaining(), study.ledger.to_confirm())
    if gpus_per_trial == AUTO:
        if any(node.gpus >= 1 and node.cpus >= 1 for node in nodes):
            await_room(1, 1, show)
        show("measuring how many trials should share a GPU")
        # The largest, so that all axes' searches measure the same, once.
        shape = max((first_shape(data.folder, name) for name in AXES), key=prod)
        gpus_per_trial = measured_share(nodes, study.space, trials, shape)
    allotment = allot(nodes, trials, gpus_per_trial, workers_per_trial)
    # The slices are read where trials run.
    await_room(allotment.cpus, allotment.gpus, show)
    return allotment


def _fit(
    trainable: object,
    ledger: Ledger,
    searcher: StudySearcher,
    monitor: Monitor,
    allotment: Allotment,
    scratch: Path,
) -> None:
    os.environ.update(_QUIET_TUNE)
    # Left by a driver that was killed: nothing of it is ever read again.
    shutil.rmtree(scratch, ignore_errors=True)
    for half_written in trials_in(scratch.parent).glob("*/.partial-*"):
        half_written.unlink(missing_ok=True)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(ledger, searcher),
            # Enough is enough: the searcher says itself when there is no more.
            num_samples=ledger.remaining() + ledger.to_confirm() + ledger.orphans,
            max_concurrent_trials=allotment.concurrent,
            # A trial of several processes may end while its first one still waits for another.
            reuse_actors=allotment.workers == 1,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            callbacks=[monitor],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES_OF_A_LOST_PROCESS),
        ),
    )
    try:
        tuner.fit()
    except RuntimeError as error:
        # Tune knows of workers that die, but not of Ray's ending them for want of memory.
        if not isinstance(error.__cause__ or error.__context__, OutOfMemoryError):
            raise
        raise UserError(
            "a node ran low on memory, so Ray ended trials there; ask for fewer trials at once, or "
            "end what else runs there, and the same command goes on from there"
        ) from None
    shutil.rmtree(scratch, ignore_errors=True)
