"""From a configuration to a training that has not begun."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from strokeseg.imaging.slices import AXIS
from strokeseg.records.config import TrialConfig
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.slice_set import SliceSet


def new_training(
    config: TrialConfig,
    training: SliceSet,
    validation: SliceSet,
    *,
    axis: str,
    encoder_weights: Mapping[str, Tensor] | None,
    epochs: int,
    slices_per_epoch: int | None,
    device: torch.device,
    seed: int,
    precision: torch.dtype | None = None,
) -> Training:
    """Build a configuration's network and make its training ready; see `Training`.

    Args:
        training: Slices to learn from.
        axis: The axis that they were cut along.
        encoder_weights: As `build_network` takes them; None for random numbers.
        epochs: Epochs of the whole schedule.
        slices_per_epoch: Slices an epoch draws.
        seed: Decides the network's first numbers, and all that follows.
        precision: The type to compute in; None for the one that the device is fastest in.
    """
    network = build_network(
        config,
        channels=training.channels,
        encoder_weights=encoder_weights,
        seed=seed,
    )
    return Training(
        network,
        training,
        validation,
        config,
        epochs=epochs,
        slices_per_epoch=slices_per_epoch,
        device=device,
        seed=seed,
        flip=AXIS[axis].flips,
        precision=precision,
    )
