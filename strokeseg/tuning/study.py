"""One axis's study: built or gone on with, run under Tune, left tidy.

The study's *settings* are all that its scores depend on: the space, the budget of a trial,
the data. They are kept in the journal, and a study goes on only with the settings that it
began with; only the number of trials may grow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from filelock import FileLock, Timeout
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune

from strokeseg.config import SearchConfig, Show
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.leaderboard import LeaderboardRow, trials_to_keep
from strokeseg.learning.weights import EncoderWeights, find_encoder_weights
from strokeseg.tuning.allotment import Allotment, allot
from strokeseg.tuning.feed import load_blocks
from strokeseg.tuning.monitor import Monitor
from strokeseg.tuning.searcher import Ledger, StudyScheduler, StudySearcher
from strokeseg.tuning.space import Space, enqueue_first, load_space
from strokeseg.tuning.trial import TrialSettings, run_trial

_SETTINGS, _WEIGHTS = "settings", "weights"
# Tune's own state is no use to us, since the journal is what we resume from.
_QUIET_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_RETRIES_OF_A_LOST_PROCESS = 2


@dataclass(frozen=True, kw_only=True)
class PreparedSlices:
    """What a study needs to know of the prepared data.

    Attributes:
        folder: The Parquet files.
        training_cases: Cases to train on.
        validation_cases: Cases that score the trials.
        spacing_mm: Voxel size (x, y, z) of the prepared cases.
        fingerprint: Hash of the preparation and its input.
    """

    folder: Path
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study opened: its ledger, and what it was opened with."""

    ledger: Ledger
    space: Space
    weights: Mapping[str, EncoderWeights]


def find_weights(space: Space, weights_dir: Path | None) -> dict[str, EncoderWeights]:
    """Return the weights of every encoder that the space may want pretrained.

    Raises:
        UserError: When some cannot be had.
    """
    return {
        encoder: find_encoder_weights(encoder, weights_dir)
        for encoder in space.pretrained_encoders()
    }


@contextmanager
def open_study(
    experiment: Experiment,
    axis: str,
    data: PreparedSlices,
    *,
    budget: SearchConfig,
    space_path: Path,
    weights_dir: Path | None,
) -> Iterator[Study]:
    """Build an axis's study or open the one that is there, and hold it against other drivers.

    Everything that can be wrong with the space or the weights is found here, before the
    first trial.

    Raises:
        UserError: When the space is wrong, pretrained weights cannot be had, the study
            began with other settings, or another process runs it.
    """
    space = load_space(space_path, len(experiment.config.data.sequences))
    settings = _settings(space, budget, data)
    folder = experiment.search_folder(axis)
    # A study that is new must fail before it leaves a file, one that is done needs no weights.
    begun = experiment.journal(axis).exists()
    weights = {} if begun else find_weights(space, weights_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "driver.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another search is running on this study; wait for it or end it"
        ) from None
    try:
        if begun and not _has_trials(experiment.journal(axis), axis):
            # Stopped before its first trial: nothing depends on the settings it had.
            experiment.journal(axis).unlink()
        study = _load_study(experiment.journal(axis), axis, settings, budget)
        _keep_settings(study, _SETTINGS, settings, folder)
        enqueue_first(study, space)
        ledger = Ledger(study, space, trials=budget.trials, epochs=budget.epochs, seed=budget.seed)
        if begun and ledger.remaining():
            weights = find_weights(space, weights_dir)
        if weights:
            hashes = {encoder: found.sha256 for encoder, found in weights.items()}
            _keep_settings(study, _WEIGHTS, hashes, folder)
        yield Study(ledger=ledger, space=space, weights=weights)
    finally:
        lock.release()


def run_study(
    study: Study,
    experiment: Experiment,
    axis: str,
    data: PreparedSlices,
    *,
    budget: SearchConfig,
    gpus_per_trial: float | None,
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
    node_cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    allotment = allot(
        ray.cluster_resources(), max(node_cpus, default=0), ledger.remaining(), gpus_per_trial
    )
    settings = TrialSettings(
        axis=axis,
        epochs=budget.epochs,
        slices_per_epoch=budget.slices_per_epoch,
        seed=budget.seed,
        training_cases=data.training_cases,
        validation_cases=data.validation_cases,
        trials_folder=str(trials_folder),
        tensorboard_folder=str(experiment.tensorboard_folder(axis)),
        threads=allotment.cpus,
        device="cuda" if allotment.gpus else "cpu",
        sequences=experiment.config.data.sequences,
        spacing_mm=data.spacing_mm,
        preparation_hash=data.fingerprint,
        code_version=code_version,
    )
    searcher = StudySearcher(ledger)
    members = experiment.config.ensemble.members_per_axis
    monitor = Monitor(
        ledger=ledger,
        searcher=searcher,
        space=study.space,
        leaderboard_csv=experiment.leaderboard_csv(axis),
        tensorboard_folder=experiment.tensorboard_folder(axis),
        trials_folder=trials_folder,
        kept=lambda rows: trials_to_keep(rows, members),
        show=show,
    )
    monitor.show("reading the slices")
    blocks = load_blocks(data.folder, axis)
    monitor.show("starting the first trials")
    trainable = tune.with_resources(
        tune.with_parameters(
            run_trial,
            blocks=blocks,
            weights=study.weights,
            settings=settings,
        ),
        {"CPU": allotment.cpus, "GPU": allotment.gpus},
    )
    _fit(trainable, ledger, searcher, monitor, allotment, experiment.search_folder(axis) / "tune")
    monitor.tidy()
    return ledger.rows()


def _fit(
    trainable: object,
    ledger: Ledger,
    searcher: StudySearcher,
    monitor: Monitor,
    allotment: Allotment,
    scratch: Path,
) -> None:
    os.environ.update(_QUIET_TUNE)
    # Left by a driver that was killed: nothing in it is ever read again.
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(ledger, searcher),
            num_samples=ledger.remaining(),
            max_concurrent_trials=allotment.concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            callbacks=[monitor],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_RETRIES_OF_A_LOST_PROCESS),
        ),
    )
    tuner.fit()
    shutil.rmtree(scratch, ignore_errors=True)


def _has_trials(journal: Path, axis: str) -> bool:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if axis not in optuna.get_all_study_names(storage):
        return False
    trials = optuna.load_study(study_name=axis, storage=storage).get_trials(deepcopy=False)
    return any(trial.state is not TrialState.WAITING for trial in trials)


def _load_study(
    journal: Path, axis: str, settings: Mapping[str, Any], budget: SearchConfig
) -> optuna.Study:
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=axis,
        direction="maximize",
        pruner=SuccessiveHalvingPruner(
            min_resource=settings["grace_epochs"], reduction_factor=budget.reduction_factor
        ),
        load_if_exists=True,
    )


def _settings(space: Space, budget: SearchConfig, data: PreparedSlices) -> dict[str, Any]:
    grace = budget.grace_epochs or max(1, budget.epochs // 3)
    return {
        "space": space.model_dump(mode="json"),
        "epochs": budget.epochs,
        "slices_per_epoch": budget.slices_per_epoch,
        "grace_epochs": grace,
        "reduction_factor": budget.reduction_factor,
        "seed": budget.seed,
        "data": data.fingerprint,
        "training_cases": list(data.training_cases),
        "validation_cases": list(data.validation_cases),
    }


def _keep_settings(
    study: optuna.Study, name: str, settings: Mapping[str, Any], folder: Path
) -> None:
    before = study.user_attrs.get(name)
    if before is None:
        study.set_user_attr(name, settings)
    if before is None or before == settings:
        return
    changes = [
        f"{key} was {old!r}, now {new!r}" for key, old, new in _differences(before, settings, "")
    ]
    raise UserError(
        f"{folder}: this study began with other settings ({'; '.join(changes)}); "
        "restore them, or move the folder away to begin anew"
    )


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            path = f"{key}.{name}" if key else name
            yield from _differences(old.get(name), new.get(name), path)
    elif old != new:
        yield key, old, new
