"""Training one network, as a generator of results.

An *epoch* is one draw of training slices, then one look at all validation cases. The
*objective* is the mean 3D Dice over validation cases: voxels are counted over all slices
of a case before the Dice is taken. A *step* is one batch.

All randomness of an epoch derives from the trial's seed and the epoch's number, and the
learning rate from the step's number, so that a run that was interrupted and restored
equals one that was not.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strokeseg.config import TrialConfig
from strokeseg.errors import UserError
from strokeseg.learning.augment import augment
from strokeseg.learning.inference import autocast, predict_batch
from strokeseg.learning.losses import MixedLoss
from strokeseg.learning.pictures import SeenSlice, telling_slices
from strokeseg.learning.sampling import cut_batches, draw_epoch
from strokeseg.learning.slice_set import SliceSet

_WARM_UP = 0.05
_LAST_RATE = 0.01
_LARGEST_GRADIENT = 1.0
_VALIDATION_BATCH = 32
_THRESHOLD = 0.5
_STEPS_BETWEEN_CHECKS = 20


class TrialFailure(Exception):  # noqa: N818 - a failed trial is a result, not an error
    """This trial came to nothing; the search goes on."""


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: Its number, from 1.
        dice: Mean 3D Dice over the validation cases, 0 to 1.
        case_dice: Each validation case's own 3D Dice, by the case's name.
        losses: Means over the epoch's slices: `total`, and every term that has a weight.
        learning_rate: Of the epoch's last step.
        seconds: Wall time with validation.
        train_seconds: Wall time without it.
        data_seconds: The part of `train_seconds` spent on gathering slices.
        slices: Slices trained on.
        memory_gb: The most memory held so far, 10^9 bytes: of torch's on a GPU, of the whole
            process elsewhere.
    """

    epoch: int
    dice: float
    case_dice: dict[str, float]
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    train_seconds: float
    data_seconds: float
    slices: int
    memory_gb: float


class Training:
    """A network, its optimiser, and how far they have come."""

    def __init__(
        self,
        network: nn.Module,
        training: SliceSet,
        validation: SliceSet,
        config: TrialConfig,
        *,
        epochs: int,
        slices_per_epoch: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        mirror: bool = True,
    ) -> None:
        """Make ready for the first epoch.

        Args:
            network: Logits (B, 1, H, W) of slices (B, C, H, W); moved to the device.
            training: Slices to learn from; those without brain are left out.
            validation: All slices of the cases that score the trial.
            config: The trial's configuration.
            epochs: Epochs of the whole schedule.
            slices_per_epoch: Slices an epoch draws; nothing for as many as hold brain.
            device: Where to train.
            seed: The trial's seed.
            mirror: Whether augmentation may reverse slices along H (see `augment`).

        Raises:
            UserError: When there is nothing to learn from or to score.
        """
        self._training = training.keep(training.hold_brain())
        if not self._training.lesion_voxels.any():
            raise UserError("the training folds show no lesion; check the masks and the splits")
        if len(validation) == 0:
            raise UserError("the validation fold holds no slices; check the splits")
        self._validation = validation
        self._validation_holds_brain = validation.hold_brain()
        self._config = config
        self._epochs = epochs
        self._slices = slices_per_epoch or len(self._training)
        self._device = torch.device(device)
        self._seed = seed
        self._mirror = mirror
        self._epoch = 0
        self._telling: dict[str, int] = {}
        # Module.to knows memory formats, but its declaration does not.
        layout: dict[str, Any] = {"memory_format": torch.channels_last}
        self.network = network.to(self._device, **layout)
        self._loss = MixedLoss(config.dice_weight, config.cross_entropy_weight, config.focal_weight)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def run(self) -> Iterator[EpochResult]:
        """Train epoch by epoch, from the one after the last that was finished.

        torch's global generator is seeded anew for every epoch, for the sake of networks
        with dropout.

        Raises:
            TrialFailure: When a loss or a probability is not finite, or a batch does not fit the
                device's memory.
        """
        while self._epoch < self._epochs:
            try:
                result = self._run_epoch(self._epoch + 1)
            except torch.OutOfMemoryError as error:
                raise TrialFailure(
                    f"batches of {self._config.batch_size} slices do not fit the device's memory"
                ) from error
            self._epoch = result.epoch
            yield result

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: plain values and tensors, not copies."""
        return {
            "epoch": self._epoch,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that a training of the same configuration left."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._epoch = int(state["epoch"])

    def seen_slices(self) -> dict[str, SeenSlice]:
        """Return the slices that tell most about the last epoch's validation.

        Returns:
            By the names of `telling_slices`; none before the first epoch.
        """
        if not self._telling:
            return {}
        validation = self._validation
        asked = np.array(list(self._telling.values()))
        images, masks = validation.gather(asked, self._device)
        self.network.eval()
        lesion = predict_batch(self.network, images) >= _THRESHOLD
        layers = [layer.cpu().numpy() for layer in (images, masks[:, 0] > 0, lesion[:, 0])]
        return {
            name: SeenSlice(
                case=str(validation.cases[position]),
                # A case's slices follow each other, all of them.
                index=position - int(np.argmax(validation.cases == validation.cases[position])),
                image=image,
                truth=truth,
                prediction=prediction,
            )
            for (name, position), image, truth, prediction in zip(
                self._telling.items(), *layers, strict=True
            )
        }

    def _run_epoch(self, epoch: int) -> EpochResult:
        started = time.perf_counter()
        losses, data_seconds, slices = self._train(epoch)
        trained = time.perf_counter()
        case_dice = self._validate()
        return EpochResult(
            epoch=epoch,
            dice=fmean(case_dice.values()),
            case_dice=case_dice,
            losses=losses,
            learning_rate=float(self._optimiser.param_groups[0]["lr"]),
            seconds=time.perf_counter() - started,
            train_seconds=trained - started,
            data_seconds=data_seconds,
            slices=slices,
            memory_gb=_memory_gb(self._device),
        )

    def _train(self, epoch: int) -> tuple[dict[str, float], float, int]:
        """Train on one draw: mean losses, seconds spent on gathering, slices."""
        draw, changes, dropout = np.random.SeedSequence([self._seed, epoch]).spawn(3)
        generator = torch.Generator(self._device).manual_seed(_seed_of(changes))
        torch.manual_seed(_seed_of(dropout))
        batches = self._draw_batches(np.random.default_rng(draw))
        first_step = (epoch - 1) * len(batches)
        schedule = [
            rate_factor(step, self._epochs * len(batches))
            for step in range(first_step, first_step + len(batches))
        ]
        self.network.train()
        sums: dict[str, Tensor] = {}
        data_seconds = 0.0
        for step, (batch, factor) in enumerate(zip(batches, schedule, strict=True)):
            asked = time.perf_counter()
            images, masks = self._training.gather(batch, self._device)
            data_seconds += time.perf_counter() - asked
            images, masks = augment(
                images, masks, self._config.augmentation, generator, mirror=self._mirror
            )
            losses = self._step(images, masks, factor * self._config.learning_rate)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss * len(batch)
            # A look at the loss waits for the device, so do not look after every step.
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == len(batches) - 1:
                _check_finite(sums["total"], f"epoch {epoch}, by step {step + 1}")
        slices = sum(len(batch) for batch in batches)
        return {name: float(loss) / slices for name, loss in sums.items()}, data_seconds, slices

    def _draw_batches(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        has_lesion = self._training.lesion_voxels > 0
        drawn = draw_epoch(has_lesion, self._slices, self._config.lesion_share, generator)
        return cut_batches(drawn, self._config.batch_size)

    def _step(self, images: Tensor, masks: Tensor, learning_rate: float) -> dict[str, Tensor]:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.zero_grad()
        with autocast(self._device):
            logits = self.network(images)
        loss, terms = self._loss(logits, masks)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        return {"total": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _validate(self) -> dict[str, float]:
        """Return the 3D Dice of every validation case."""
        validation = self._validation
        overlap, predicted = _count_voxels(
            self.network,
            validation,
            self._device,
            holds_brain=self._validation_holds_brain,
            where=f"epoch {self._epoch + 1}, in validation",
        )
        self._telling = telling_slices(validation.lesion_voxels, overlap, predicted)
        return dice_by_case(validation.cases, overlap, predicted, validation.lesion_voxels)


def score_slices(
    network: nn.Module, slices: SliceSet, device: torch.device, *, where: str
) -> dict[str, float]:
    """Return the 3D Dice of every case, its voxels counted over those of its slices given.

    Slices without brain are taken for lesion-free without asking the network.

    Args:
        network: Logits (B, 1, H, W) of slices (B, C, H, W), on `device`; in evaluation mode
            afterwards.
        slices: N slices.
        device: Where to compute.
        where: When this is, for the failure's message.

    Raises:
        TrialFailure: When a probability is not finite.
    """
    overlap, predicted = _count_voxels(
        network, slices, device, holds_brain=slices.hold_brain(), where=where
    )
    return dice_by_case(slices.cases, overlap, predicted, slices.lesion_voxels)


def _count_voxels(
    network: nn.Module,
    slices: SliceSet,
    device: torch.device,
    *,
    holds_brain: NDArray[np.bool_],
    where: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many lesion voxels of each slice were met, and how many predicted, (N,)."""
    overlap = np.zeros(len(slices), dtype=np.int64)
    predicted = np.zeros(len(slices), dtype=np.int64)
    asked = np.flatnonzero(holds_brain)
    network.eval()
    for start in range(0, len(asked), _VALIDATION_BATCH):
        batch = asked[start : start + _VALIDATION_BATCH]
        images, masks = slices.gather(batch, device)
        probability = predict_batch(network, images)
        _check_finite(probability.sum(), where)
        lesion = probability >= _THRESHOLD
        predicted[batch] = lesion.sum(dim=(1, 2, 3)).cpu().numpy()
        overlap[batch] = (lesion & (masks > 0)).sum(dim=(1, 2, 3)).cpu().numpy()
    return overlap, predicted


def dice_by_case(
    cases: NDArray[np.str_],
    overlap: NDArray[np.int64],
    predicted: NDArray[np.int64],
    true: NDArray[np.int64],
) -> dict[str, float]:
    """Return each case's 3D Dice, in order of the cases' names.

    A case without lesion scores 1 when none is predicted, else 0.

    Args:
        cases: (N,) the slices' cases; the rest are (N,) voxels of each slice:
        overlap: predicted and true.
        predicted: predicted.
        true: true.

    Source:
        Dice, Measures of the amount of ecologic association between species, 1945.
    """
    names, positions = np.unique(cases, return_inverse=True)
    both = np.bincount(positions, weights=overlap)
    either = np.bincount(positions, weights=predicted) + np.bincount(positions, weights=true)
    dice = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
    return dict(zip(names.tolist(), dice.tolist(), strict=True))


def rate_factor(step: int, steps: int) -> float:
    """Return a step's share of the peak learning rate.

    It grows in a straight line over the first 5 % of the steps, then falls along half a
    cosine to 1 % at the last step.

    Args:
        step: The step's number over all epochs, from 0.
        steps: Steps of all epochs.
    """
    warm_up = max(1, round(steps * _WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up + 1) / (steps - warm_up)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Linux counts in units of 1024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _seed_of(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1)[0])


def _check_finite(value: Tensor, where: str) -> None:
    if not math.isfinite(value):
        raise TrialFailure(f"numbers are no longer finite ({where}); the loss or weights exploded")
