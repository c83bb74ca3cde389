"""One point of the space: configuration in, member file and scores out.

The only module that talks to Tune from inside a trial. A *proposal* is what the searcher
suggested: the trial's number, its configuration, and the last epoch that the driver knows
of. After every epoch the trial's *state* is on disk before the epoch is reported, so that
a trial goes on after any interruption and reports what the driver missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import ray
import torch
from ray import tune

from strokeseg.config import TrialConfig
from strokeseg.errors import UserError
from strokeseg.experiment import trial_picture_events, trial_state, trial_weights
from strokeseg.imaging.slices import pixel_mm
from strokeseg.learning.checkpoint import MemberRecord, load_state, save_member, save_state
from strokeseg.learning.networks import build_network
from strokeseg.learning.pictures import draw_picture
from strokeseg.learning.slice_set import SliceSet
from strokeseg.learning.training import EpochResult, Training, TrialFailure
from strokeseg.learning.weights import EncoderWeights
from strokeseg.tuning.feed import slice_set
from strokeseg.tuning.picture_events import replace_pictures

_log = logging.getLogger(__name__)
# Distinguishes one trial's seed from the next: trial n of a study uses seed + n * stride.
_SEED_STRIDE = 100_003


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What all trials of a study share.

    Attributes:
        axis: The study's axis.
        epochs: Epochs of a trial that is never stopped early.
        slices_per_epoch: Training slices an epoch; nothing for all there are.
        seed: The study's seed.
        folds: The cases of each fold.
        validation_fold: The fold that scores trials, the others train; nothing for k-fold
            scoring, one fold after the other.
        trials_folder: Where trials leave their files; every node sees it.
        tensorboard_folder: Where they leave their pictures; every node sees it.
        threads: CPU threads of a trial.
        gpus: GPUs of a trial, or the fraction of one; 0 to train on CPUs.
        sequences: Sequences in the order of the channels.
        spacing_mm: Voxel size (x, y, z) of the prepared cases.
        preparation_hash: Fingerprint of the prepared data.
        code_version: Version of this code.
    """

    axis: str
    epochs: int
    slices_per_epoch: int | None
    seed: int
    folds: tuple[tuple[str, ...], ...]
    validation_fold: int | None
    trials_folder: str
    tensorboard_folder: str
    threads: int
    gpus: float
    sequences: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    preparation_hash: str
    code_version: str


def run_trial(
    proposal: Mapping[str, Any],
    *,
    blocks: Sequence[ray.ObjectRef],
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
) -> None:
    """Train one trial inside Tune, reporting exactly once an epoch.

    Whatever the trial raises, a loss that is not finite, a device out of memory, a broken
    batch, is reported as its `failure`: it would raise the same again. Tune tries again only
    what ended without a word, since its process was lost.
    """
    # OpenMP keeps the number of threads by thread, and Tune gives every trial a new one.
    torch.set_num_threads(settings.threads)
    tables = ray.get(list(blocks))
    try:
        for metrics in train_trial(proposal, tables, weights, settings):
            tune.report(metrics)
    except (TrialFailure, UserError) as failure:
        tune.report({"failure": str(failure)})
    except Exception as error:
        # The only place that catches everything: one trial must not end the others.
        _log.exception("trial %s failed", proposal["number"])
        tune.report({"failure": f"{type(error).__name__}: {error}"})


def train_trial(
    proposal: Mapping[str, Any],
    tables: Sequence[pa.Table],
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
) -> Iterator[dict[str, Any]]:
    """Train a trial, or go on with it, and yield the metrics of every unreported epoch.

    With k-fold scoring epochs are counted on over the folds, and the last one of a fold
    yields `case_dice`, pairs of each of its cases and the Dice at the fold's best epoch.

    Args:
        proposal: `number`, `config` and `reported_epoch` as the searcher gave them.
        tables: The axis's slices as Arrow tables.
        weights: Pretrained weights by encoder, for all encoders that the space may ask for.
        settings: What all trials share.

    Raises:
        TrialFailure: When the loss is not finite.
    """
    number = int(proposal["number"])
    config = TrialConfig.model_validate(proposal["config"])
    state_path = trial_state(Path(settings.trials_folder), number)
    saved = load_state(state_path) if state_path.exists() else {"training": None, "history": []}
    history: list[dict[str, Any]] = saved["history"]
    yield from history[int(proposal["reported_epoch"]) :]
    slices = slice_set(tables)
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
            state = {"training": training.state(), "history": history, "best": best}
            save_state(state_path, state)
            yield metrics


def _training(
    number: int,
    config: TrialConfig,
    slices: SliceSet,
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
    fold: int,
) -> Training:
    seed = settings.seed + number * _SEED_STRIDE
    network = build_network(
        encoder=config.encoder,
        encoder_depth=config.encoder_depth,
        channels=len(settings.sequences),
        encoder_weights=weights[config.encoder].tensors if config.pretrained else None,
        seed=seed,
    )
    training_cases = [
        case for other, cases in enumerate(settings.folds) if other != fold for case in cases
    ]
    return Training(
        network=network,
        training=slices.select(training_cases),
        validation=slices.select(settings.folds[fold]),
        config=config,
        epochs=settings.epochs,
        slices_per_epoch=settings.slices_per_epoch,
        device=torch.device("cuda" if settings.gpus else "cpu"),
        seed=seed,
        # Rows of a sagittal slice run from back to front: no brain is its own mirror there.
        mirror=settings.axis != "sagittal",
    )


def _keep_pictures(number: int, training: Training, epoch: int, settings: TrialSettings) -> None:
    pictures = {
        f"slices/{name}": draw_picture(
            seen,
            settings.sequences,
            pixel_mm(settings.spacing_mm, settings.axis),
            left_side="A" if settings.axis == "sagittal" else "R",
        )
        for name, seen in training.seen_slices().items()
    }
    folder = trial_picture_events(Path(settings.tensorboard_folder), number)
    replace_pictures(folder, pictures, epoch)


def _metrics(
    result: EpochResult, history: Sequence[Mapping[str, Any]], settings: TrialSettings
) -> dict[str, Any]:
    before = history[-1] if history else {"epoch": 0, "seconds": 0.0, "device_hours": 0.0}
    devices = settings.gpus or settings.threads
    return {
        "epoch": before["epoch"] + 1,
        "dice": result.dice,
        "spread": pstdev(result.case_dice.values()),
        "learning_rate": result.learning_rate,
        "losses": dict(result.losses),
        "seconds": before["seconds"] + result.seconds,
        "device_hours": before["device_hours"] + result.seconds * devices / 3600,
        "slices_per_second": result.slices / result.train_seconds,
        "wait_share": result.data_seconds / result.train_seconds,
        "memory_gb": result.memory_gb,
    }


def _record(
    number: int,
    config: TrialConfig,
    weights: Mapping[str, EncoderWeights],
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
            "weights_source": weights[config.encoder].source if config.pretrained else None,
            "preparation_hash": settings.preparation_hash,
            "code_version": settings.code_version,
        }
    )
