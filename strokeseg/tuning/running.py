"""Studies that are open, run under Tune side by side: one run, whatever the number of axes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError

from strokeseg.compute.allotment import Allotment, allot
from strokeseg.compute.autoscaling import await_node, may_grow
from strokeseg.compute.gpu_share import AUTO, Auto
from strokeseg.errors import UserError
from strokeseg.process.interrupts import lending_interrupts_to_tune
from strokeseg.process.progress import Show
from strokeseg.records.config import SearchConfig
from strokeseg.records.experiment import Experiment, trials_in
from strokeseg.records.leaderboard import trials_to_keep
from strokeseg.tuning.feed import first_shape, open_feeds
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.monitor import SearchMonitor, StudyMonitor
from strokeseg.tuning.packing import measured_share
from strokeseg.tuning.searcher import RETRIES_OF_A_LOST_PROCESS, StudyScheduler, StudySearcher
from strokeseg.tuning.study import PreparedSlices, Study
from strokeseg.tuning.trial_process import run_trial
from strokeseg.tuning.trial_settings import TrialSettings

# Tune's own state is no use to us, since the journal is what we resume from.
_QUIET_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def run_studies(
    studies: Mapping[str, Study],
    experiment: Experiment,
    data: PreparedSlices,
    *,
    budget: SearchConfig,
    gpus_per_trial: float | Auto | None,
    deterministic: bool,
    code_version: str,
    show: Show,
) -> None:
    """Run what is left of studies, side by side in the Ray that this process is connected to.

    Their trials share the worker processes. Trials are left to run if the search was interrupted.

    Args:
        studies: By axis.
        budget: How each axis is searched.
        gpus_per_trial: As asked for; None for one, or for none where there are none.
        deterministic: Whether equal seeds must give equal numbers: one trial at a time.
        code_version: Version of this code, for the record.
        show: Called with epochs done, of how many, and a note.

    Raises:
        UserError: When the cluster lacks what the trials ask for.
    """
    ledgers = {axis: study.ledger for axis, study in studies.items()}
    searcher = StudySearcher(ledgers)
    monitors = {axis: _monitor(study, experiment, axis, budget) for axis, study in studies.items()}
    monitor = SearchMonitor(monitors, ledgers, searcher, show)
    allotment = _allotment(
        *(studies, data, gpus_per_trial),
        one_at_a_time=deterministic,
        show=monitor.show,
    )
    settings = {
        axis: TrialSettings(
            axis=axis,
            epochs=budget.epochs,
            slices_per_epoch=budget.slices_per_epoch,
            seed=budget.seed,
            folds=data.folds,
            validation_fold=None if budget.scoring == "k-fold" else data.validation_fold,
            trials_folder=str(experiment.trials_folder(axis)),
            tensorboard_folder=str(experiment.tensorboard_folder(axis)),
            allotment=allotment,
            deterministic=deterministic,
            sequences=experiment.config.data.sequences,
            spacing_mm=data.spacing_mm,
            preparation_hash=data.fingerprint,
            code_version=code_version,
        )
        for axis in studies
    }
    monitor.show("reading the slices")
    cases = [case for fold in data.folds for case in fold]
    feeds = open_feeds(data.folder, tuple(studies), cases, gpus=allotment.gpus)
    monitor.show("starting the first trials")
    weights = {
        encoder: ray.put(found)
        for study in studies.values()
        for encoder, found in study.weights.items()
    }
    bundle = {"CPU": allotment.cpus, "GPU": allotment.gpus}
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, feeds=feeds, weights=weights, settings=settings),
        tune.PlacementGroupFactory([bundle]),
    )
    scratch = [experiment.search_folder(axis) / "tune" for axis in studies]
    with lending_interrupts_to_tune():
        try:
            _fit(trainable, ledgers, searcher, monitor, allotment, scratch)
        finally:
            for ledger in ledgers.values():
                ledger.close()
        monitor.tidy()


def _monitor(study: Study, experiment: Experiment, axis: str, budget: SearchConfig) -> StudyMonitor:
    kept = max(experiment.config.ensemble.candidates_per_axis, budget.confirm_trials)
    return StudyMonitor(
        ledger=study.ledger,
        space=study.space,
        leaderboard_csv=experiment.leaderboard_csv(axis),
        tensorboard_folder=experiment.tensorboard_folder(axis),
        trials_folder=experiment.trials_folder(axis),
        kept=lambda rows: trials_to_keep(rows, kept),
    )


def _allotment(
    studies: Mapping[str, Study],
    data: PreparedSlices,
    gpus_per_trial: float | Auto | None,
    *,
    one_at_a_time: bool,
    show: Callable[[str], None],
) -> Allotment:
    requested = 0.0 if gpus_per_trial is None or gpus_per_trial == AUTO else gpus_per_trial
    nodes = await_node(requested, show)
    ledgers = [study.ledger for study in studies.values()]
    trials = sum(max(ledger.remaining(), ledger.to_confirm()) for ledger in ledgers)
    if one_at_a_time:
        trials = 1
    if gpus_per_trial == AUTO:
        show("measuring how many trials should share a GPU")
        shape = max((first_shape(data.folder, axis) for axis in studies), key=prod)
        spaces = [study.space for study in studies.values()]
        gpus_per_trial = measured_share(nodes, spaces, trials, shape)
    allotment = allot(nodes, trials, gpus_per_trial)
    if may_grow() and not one_at_a_time:
        return replace(allotment, concurrent=None)
    return allotment


def _fit(
    trainable: object,
    ledgers: Mapping[str, Ledger],
    searcher: StudySearcher,
    monitor: SearchMonitor,
    allotment: Allotment,
    scratch: Sequence[Path],
) -> None:
    os.environ.update(_QUIET_TUNE)
    for folder in scratch:
        # Left by a driver that was killed: nothing of it is ever read again.
        shutil.rmtree(folder, ignore_errors=True)
        for half_written in trials_in(folder.parent).glob("*/.partial-*"):
            half_written.unlink(missing_ok=True)
    # One axis's, whose study is locked, serves all.
    (place, *_) = scratch
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(ledgers, searcher),
            # Enough is enough: the searcher says itself when there is no more.
            num_samples=sum(
                ledger.remaining() + ledger.to_confirm() + ledger.orphans
                for ledger in ledgers.values()
            ),
            # With None, Tune lets one trial wait.
            max_concurrent_trials=allotment.concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=place.name,
            storage_path=str(place.parent),
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
    shutil.rmtree(place, ignore_errors=True)
