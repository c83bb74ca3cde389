"""One point of the space: configuration in, member file and scores out.

The only module that talks to Tune from inside a trial. A *proposal* is what the searcher
suggested: the trial's number, its configuration, and the last epoch that the driver knows
of. After every epoch the trial's *state* is on disk before the epoch is reported, so that
a trial goes on after any interruption and reports what the driver missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
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
        training_cases: Cases to train on.
        validation_cases: Cases that score the trial.
        trials_folder: Where trials leave their files; every node sees it.
        tensorboard_folder: Where they leave their pictures; every node sees it.
        threads: CPU threads of a trial.
        device: `cpu` or `cuda`.
        sequences: Sequences in the order of the channels.
        spacing_mm: Voxel size (x, y, z) of the prepared cases.
        preparation_hash: Fingerprint of the prepared data.
        code_version: Version of this code.
    """

    axis: str
    epochs: int
    slices_per_epoch: int | None
    seed: int
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    trials_folder: str
    tensorboard_folder: str
    threads: int
    device: str
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

    What trying again cannot mend (a loss that is not finite, a device out of memory, a full
    disk) is reported as the trial's `failure`; anything else is raised, and Tune tries again.
    """
    # OpenMP keeps the number of threads by thread, and Tune gives every trial a new one.
    torch.set_num_threads(settings.threads)
    tables = ray.get(list(blocks))
    try:
        for metrics in train_trial(proposal, tables, weights, settings):
            tune.report(metrics)
    except (TrialFailure, UserError) as failure:
        tune.report({"failure": str(failure)})


def train_trial(
    proposal: Mapping[str, Any],
    tables: Sequence[pa.Table],
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
) -> Iterator[dict[str, Any]]:
    """Train a trial, or go on with it, and yield the metrics of every unreported epoch.

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
    folder = Path(settings.trials_folder)
    slices = slice_set(tables)
    training = _training(number, config, slices, weights, settings)
    history: list[dict[str, Any]] = []
    state_path = trial_state(folder, number)
    if state_path.exists():
        saved = load_state(state_path)
        training.restore(saved["training"])
        history = saved["history"]
    yield from history[int(proposal["reported_epoch"]) :]
    if len(history) >= settings.epochs:
        return
    for result in training.run():
        best = max((row["dice"] for row in history), default=-1.0)
        history.append(_metrics(result, history))
        if result.dice > best:
            record = _record(number, config, weights, settings, result, slices.size)
            save_member(trial_weights(folder, number), training.network, record)
            _keep_pictures(number, training, result.epoch, settings)
        save_state(state_path, {"training": training.state(), "history": history})
        yield history[-1]


def _training(
    number: int,
    config: TrialConfig,
    slices: SliceSet,
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
) -> Training:
    seed = settings.seed + number * _SEED_STRIDE
    network = build_network(
        encoder=config.encoder,
        encoder_depth=config.encoder_depth,
        channels=len(settings.sequences),
        encoder_weights=weights[config.encoder].tensors if config.pretrained else None,
        seed=seed,
    )
    return Training(
        network=network,
        training=slices.select(settings.training_cases),
        validation=slices.select(settings.validation_cases),
        config=config,
        epochs=settings.epochs,
        slices_per_epoch=settings.slices_per_epoch,
        device=torch.device(settings.device),
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


def _metrics(result: EpochResult, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    spent = history[-1]["seconds"] if history else 0.0
    return {
        "epoch": result.epoch,
        "dice": result.dice,
        "learning_rate": result.learning_rate,
        "losses": dict(result.losses),
        "seconds": spent + result.seconds,
        "slices_per_second": result.slices / result.train_seconds,
        "wait_share": result.data_seconds / result.train_seconds,
        "memory_gb": result.memory_gb,
        "spread": pstdev(result.case_dice.values()),
    }


def _record(
    number: int,
    config: TrialConfig,
    weights: Mapping[str, EncoderWeights],
    settings: TrialSettings,
    result: EpochResult,
    slice_size: tuple[int, int],
) -> MemberRecord:
    return MemberRecord.model_validate(
        {
            "axis": settings.axis,
            "trial": number,
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
