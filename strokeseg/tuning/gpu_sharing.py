"""The throughput of trials that share a GPU, measured on one.

A small network does not fill a large GPU. Here a *trial* is an actor that trains on a share of a
GPU, on slices of noise. First one trains each encoder of the space for a moment, at its greatest
depth and batch size: as many trials fit a GPU as leave room for the largest of them. Then 1, 2,
4 … trials train the space's default configuration side by side, for as long as doubling them pays.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import ray
import torch
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from strokeseg.compute.gpu_share import AUTO
from strokeseg.errors import UserError
from strokeseg.records.config import TrialConfig
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.memory import peak_bytes, total_bytes
from strokeseg.training.setup import new_training
from strokeseg.training.slice_set import slices_in_memory
from strokeseg.training.validation import TrialFailure
from strokeseg.tuning.space import Space

_log = logging.getLogger(__name__)

# Twice the trials must do a tenth more work, or the trials only take longer.
_WORTH = 1.1
# Slices may lie on the GPU as well (`feed`), and memory breaks into pieces.
_TRAINING_SHARE = 0.6
_STEPS_AN_EPOCH = 8
_WARM_EPOCHS = 2
_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What trials reach side by side.

    Attributes:
        trials: How many share the GPU.
        slices_per_second: Of all together.
    """

    trials: int
    slices_per_second: float


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Peak memory of a trial on its device, and the device's memory."""

    trial_bytes: int
    device_bytes: int


def best_trial_count(throughputs: Iterable[Throughput]) -> int:
    """Return the largest number of trials up to which each doubling paid.

    Args:
        throughputs: By ascending number of trials.
    """
    first, *others = throughputs
    best = first
    for throughput in others:
        if throughput.slices_per_second < _WORTH * best.slices_per_second:
            break
        best = throughput
    return best.trials


def largest_configurations(spaces: Iterable[Space]) -> list[TrialConfig]:
    """Return, for each kind of network of each space, the point that needs the most memory."""
    return list(
        {repr(config): config for space in spaces for config in _largest_of(space)}.values()
    )


def _largest_of(space: Space) -> list[TrialConfig]:
    batch = space.dimensions.get("batch_size")
    size = {"batch_size": max(batch.extremes)} if batch else {}
    return [
        TrialConfig.model_validate({**network.model_dump(), **size}) for network in space.networks()
    ]


def measure_sharing(
    spaces: Sequence[Space], shape: tuple[int, int, int], most: int, *, device: str
) -> tuple[MemoryUse, list[Throughput]]:
    """Let trials train on one GPU of this cluster.

    Args:
        spaces: What the trials will try; the first one's default is what they train.
        shape: Channels, height and width of a slice.
        most: Trials at most.
        device: `cuda`; `cpu` measures the same where Ray only believes that there is a GPU.

    Returns:
        Memory use of the largest configuration, and the throughput of 1, 2, 4 … trials, while
        doubling them paid.

    Raises:
        UserError: When no whole GPU, with a CPU for each trial, is free.
    """
    config = spaces[0].default_config()
    with _one_gpu(most) as place:
        # They start side by side, which takes longer than all that is measured.
        trials = [_trial(place, most, shape, device) for _ in range(most)]
        memory: MemoryUse = ray.get(trials[0].memory_use.remote(largest_configurations(spaces)))
        fit = int(_TRAINING_SHARE * memory.device_bytes / max(1, memory.trial_bytes))
        throughputs: list[Throughput] = []
        number = 1
        while number == 1 or number <= min(most, fit):
            chosen = trials[:number]
            try:
                ray.get([trial.begin.remote(config) for trial in chosen])
                rates = ray.get([trial.train.remote(_SECONDS) for trial in chosen])
            except TrialFailure as failure:
                # So many do not fit after all: they train nothing.
                _log.warning("packing, %d side by side: %s", number, failure)
                rates = [0.0]
            throughputs.append(Throughput(trials=number, slices_per_second=sum(rates)))
            if best_trial_count(throughputs) < number or not sum(rates):
                break
            number *= 2
    return memory, throughputs


@contextmanager
def _one_gpu(cpus: int) -> Iterator[ray.util.placement_group.PlacementGroup]:
    place = placement_group([{"GPU": 1, "CPU": cpus}])
    try:
        if not place.wait(_PATIENCE_SECONDS):
            raise UserError(
                f"--gpus-per-trial {AUTO}: no GPU with {cpus} CPUs was free within "
                f"{_PATIENCE_SECONDS:g} s to measure on; say how many GPUs a trial gets"
            )
        yield place
    finally:
        # The actors end with their placement group.
        remove_placement_group(place)


def _trial(
    place: object, share: int, shape: tuple[int, int, int], device: str
) -> ray.actor.ActorHandle:
    strategy = PlacementGroupSchedulingStrategy(
        placement_group=place, placement_group_bundle_index=0
    )
    options = {"num_cpus": 1, "num_gpus": 1 / share, "scheduling_strategy": strategy}
    kind = ray.remote(_TrialActor).options(**options)
    return kind.remote(shape, device)


class _TrialActor:
    """A process that trains on noise."""

    def __init__(self, shape: tuple[int, int, int], device: str) -> None:
        torch.set_num_threads(1)
        self._shape = shape
        self._device = torch.device(device)
        self._epochs: Iterator[EpochResult] = iter(())

    def memory_use(self, configs: Sequence[TrialConfig]) -> MemoryUse:
        """Train each configuration for an epoch; one that does not fit needs all there is."""
        total = total_bytes(self._device)
        for config in configs:
            try:
                next(self._training(config).run())
            except TrialFailure as failure:
                _log.warning("%s, alone on a device: %s", config.encoder, failure)
                return MemoryUse(trial_bytes=total, device_bytes=total)
        return MemoryUse(trial_bytes=peak_bytes(self._device), device_bytes=total)

    def begin(self, config: TrialConfig) -> None:
        """Train until all is warm."""
        self._epochs = self._training(config).run()
        for _ in range(_WARM_EPOCHS):
            next(self._epochs)

    def train(self, seconds: float) -> float:
        """Train for so long, whole epochs; return slices a second, validation left out."""
        end = time.perf_counter() + seconds
        slices = spent = 0.0
        while time.perf_counter() < end:
            result = next(self._epochs)
            slices += result.slices
            spent += result.train_seconds
        return slices / spent

    def _training(self, config: TrialConfig) -> Training:
        channels, height, width = self._shape
        count = config.batch_size * _STEPS_AN_EPOCH
        noise = np.random.default_rng(0).normal(size=(count, channels, height, width))
        masks = np.zeros((count, height, width), dtype=np.uint8)
        masks[::2, : height // 4, : width // 4] = 1
        slices = slices_in_memory([noise.astype(np.float16)], [masks], np.array(["noise"] * count))
        slices = slices.on(self._device)
        return new_training(
            config,
            slices,
            slices.keep(np.arange(count) == 0),
            # Where slices may be flipped.
            axis="axial",
            encoder_weights=None,
            epochs=sys.maxsize,
            slices_per_epoch=count,
            device=self._device,
            seed=0,
        )
