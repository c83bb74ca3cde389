"""One point of the space: configuration in, member file and scores out.

The only module that talks to Tune from inside a trial. A *proposal* is what the searcher
suggested: the trial's number, its configuration, and the last epoch that the driver knows
of. After every epoch the trial's *state* is on disk before the epoch is reported, so that
a trial goes on after any interruption and reports what the driver missed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import ray
import torch
from ray import tune
from safetensors.torch import load

from strokeseg.errors import DeviceError, StorageError, UserError
from strokeseg.imaging.slices import AXIS, pixel_mm
from strokeseg.records.config import TrialConfig
from strokeseg.records.experiment import (
    trial_picture_events,
    trial_state,
    trial_weights,
)
from strokeseg.records.member import MemberRecord
from strokeseg.storage.files import storage_fault
from strokeseg.training.checkpoint import load_state, save_member, save_state
from strokeseg.training.encoders import FoundWeights
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.pictures import draw_picture
from strokeseg.training.precision import compute_deterministically
from strokeseg.training.pretrained import EncoderWeights
from strokeseg.training.setup import new_training
from strokeseg.training.slice_set import SliceSet
from strokeseg.training.validation import TrialFailure
from strokeseg.tuning.feed import Feed
from strokeseg.tuning.gpus import leave_broken_gpu, take_gpu
from strokeseg.tuning.picture_events import replace_pictures
from strokeseg.tuning.trial_settings import TrialSettings
from strokeseg.tuning.trial_slices import slices_of

_log = logging.getLogger(__name__)
# What torch and CUDA raise (a broken kernel, a full device), what numbers and shapes that do not
# fit make them raise, and a disk or a memory that is full: one trial's end.
_FAILURES = (RuntimeError, ValueError, OSError, MemoryError)
# Distinguishes one trial's seed from the next: trial n of a study uses seed + n * stride.
_SEED_STRIDE = 100_003


def run_trial(
    proposal: Mapping[str, Any],
    *,
    feed: Feed,
    weights: Mapping[str, ray.ObjectRef],
    settings: TrialSettings,
) -> None:
    """Train one trial inside Tune, reporting exactly once an epoch.

    `weights` are references to the pretrained weights by encoder, for all encoders that the
    space may ask for: a trial fetches those of its own.

    Whatever the trial raises, a loss that is not finite, a device out of memory, a broken
    batch, is reported as its `failure`: it would raise the same again. A place that cannot be
    written to, and a GPU that does not compute, end the search, and no trial. Tune tries again only
    what ended without a word, since its process was lost.
    """
    # Seconds that Tune gives a trial that it has stopped before the process takes the next one. A
    # trial that comes too early ends with an error that the study never hears of.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    # OpenMP keeps the number of threads by thread, and Tune gives every trial a new one.
    allotment = settings.allotment
    torch.set_num_threads(allotment.cpus)
    compute_deterministically(settings.deterministic)
    try:
        if allotment.gpus:
            take_gpu()
        for metrics in train_trial(
            proposal, slices_of(feed), _weights_for(proposal, weights), settings
        ):
            tune.report(metrics)
    except (StorageError, DeviceError) as error:
        # No fault of this trial, which goes on where it stopped once that is mended.
        tune.report({"halt": str(error)})
    except (TrialFailure, UserError) as failure:
        tune.report({"failure": str(failure)})
    except _FAILURES as error:
        if fault := storage_fault(error):
            where = fault.filename or settings.trials_folder
            tune.report({"halt": f"{where}: cannot be written ({fault.strerror})"})
            return
        leave_broken_gpu()
        # Anything else is our bug: Tune tries it again, then fails the trial with its last line.
        _log.exception("trial %s failed", proposal["number"])
        tune.report({"failure": f"{type(error).__name__}: {error}"})


def _weights_for(
    proposal: Mapping[str, Any], weights: Mapping[str, ray.ObjectRef]
) -> EncoderWeights | None:
    config = proposal["config"]
    if not config["pretrained"]:
        return None
    found: FoundWeights = ray.get(weights[config["encoder"]])
    return EncoderWeights(
        encoder=found.encoder,
        source=found.source,
        sha256=found.sha256,
        tensors=load(found.content),
    )


def train_trial(
    proposal: Mapping[str, Any],
    slices: SliceSet,
    weights: EncoderWeights | None,
    settings: TrialSettings,
) -> Iterator[dict[str, Any]]:
    """Train a trial, or go on with it, and yield the metrics of every unreported epoch.

    With k-fold scoring epochs are counted on over the folds, and the last one of a fold
    yields `case_dice`, pairs of each of its cases and the Dice at the fold's best epoch.

    Args:
        proposal: `number`, `config` and `reported_epoch` as the searcher gave them.
        weights: The encoder's pretrained weights, where the configuration asks for them.
        settings: What all trials share.

    Raises:
        TrialFailure: When the loss is not finite.
    """
    number = int(proposal["number"])
    config = TrialConfig.model_validate(proposal["config"])
    saved = _saved(proposal, settings)
    history: list[dict[str, Any]] = saved["history"]
    reported = int(proposal["reported_epoch"])
    yield from history[reported:]
    k_fold = settings.validation_fold is None
    folds = range(len(settings.folds)) if k_fold else (settings.validation_fold or 0,)
    for position, fold in enumerate(folds):
        first = position * settings.epochs
        if len(history) >= first + settings.epochs:
            continue
        training = _training(number, config, slices, weights, settings, fold)
        if len(history) > first:
            training.restore(saved["training"])
        path = trial_weights(Path(settings.trials_folder), number, fold if k_fold else None)
        best: dict[str, float] = saved.get("best", {}) if len(history) > first else {}
        for result in training.run():
            is_best = not best or result.dice > fmean(best.values())
            if is_best:
                best = result.case_dice
            metrics = _metrics(result, history, settings)
            if k_fold and result.epoch == settings.epochs:
                # As pairs, since Tune takes dictionaries apart on their way to the scheduler.
                metrics["case_dice"] = list(best.items())
            history.append(metrics)
            if is_best:
                record = _record(number, config, weights, settings, result, slices.size, fold)
                save_member(path, training.network, record)
                _keep_pictures(number, training, metrics["epoch"], settings)
            state = {
                "training": training.state(),
                "history": history,
                "best": best,
                "config": dict(proposal["config"]),
            }
            save_state(trial_state(Path(settings.trials_folder), number), state)
            # A journal from a storage may know epochs that the state from there lacks.
            if metrics["epoch"] > reported:
                yield metrics


def _saved(proposal: Mapping[str, Any], settings: TrialSettings) -> dict[str, Any]:
    """Return a trial's state, or that of one that has yet to begin."""
    path = trial_state(Path(settings.trials_folder), int(proposal["number"]))
    saved = load_state(path) if path.exists() else {}
    # A journal from a storage may know less than the trials left there: this number may be new.
    if saved.get("config", proposal["config"]) != proposal["config"] or not saved:
        return {"training": None, "history": []}
    return saved


def _training(
    number: int,
    config: TrialConfig,
    slices: SliceSet,
    weights: EncoderWeights | None,
    settings: TrialSettings,
    fold: int,
) -> Training:
    training_cases = [
        case for other, cases in enumerate(settings.folds) if other != fold for case in cases
    ]
    return new_training(
        config,
        slices.select(training_cases),
        slices.select(settings.folds[fold]),
        axis=settings.axis,
        encoder_weights=None if weights is None else weights.tensors,
        epochs=settings.epochs,
        slices_per_epoch=settings.slices_per_epoch,
        device=torch.device("cuda" if settings.allotment.gpus else "cpu"),
        seed=settings.seed + number * _SEED_STRIDE,
    )


def _keep_pictures(number: int, training: Training, epoch: int, settings: TrialSettings) -> None:
    pictures = {
        f"slices/{name}": draw_picture(
            seen,
            settings.sequences,
            pixel_mm(settings.spacing_mm, settings.axis),
            left_side=AXIS[settings.axis].left,
        )
        for name, seen in training.seen_slices().items()
    }
    folder = trial_picture_events(Path(settings.tensorboard_folder), number)
    replace_pictures(folder, pictures, epoch)


def _metrics(
    result: EpochResult, history: Sequence[Mapping[str, Any]], settings: TrialSettings
) -> dict[str, Any]:
    before = history[-1] if history else {"epoch": 0, "seconds": 0.0, "device_hours": 0.0}
    return {
        "epoch": before["epoch"] + 1,
        "dice": result.dice,
        "spread": pstdev(result.case_dice.values()),
        "learning_rate": result.learning_rate,
        "losses": dict(result.losses),
        "seconds": before["seconds"] + result.seconds,
        "device_hours": before["device_hours"] + result.seconds * settings.allotment.devices / 3600,
        "slices_per_second": result.slices / result.train_seconds,
        "wait_share": result.data_seconds / result.train_seconds,
        "memory_gb": result.memory_gb,
    }


def _record(
    number: int,
    config: TrialConfig,
    weights: EncoderWeights | None,
    settings: TrialSettings,
    result: EpochResult,
    slice_size: tuple[int, int],
    fold: int,
) -> MemberRecord:
    return MemberRecord.model_validate(
        {
            "axis": settings.axis,
            "trial": number,
            "fold": fold,
            "config": config,
            "channels": settings.sequences,
            "dice": result.dice,
            "epoch": result.epoch,
            "spacing_mm": settings.spacing_mm,
            "slice_size": slice_size,
            "weights_source": None if weights is None else weights.source,
            "preparation_hash": settings.preparation_hash,
            "code_version": settings.code_version,
        }
    )
