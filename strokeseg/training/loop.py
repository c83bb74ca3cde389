"""Training one network, as a generator of results.

An *epoch* is one draw of training slices, then one look at all validation cases. The
*objective* is the mean 3D Dice over validation cases: voxels are counted over all slices
of a case before the Dice is taken. A *step* is one batch.

All randomness of an epoch derives from the trial's seed and the epoch's number, and the
learning rate from the step's number, so that a run that was interrupted and restored
equals one that was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strokeseg.errors import UserError
from strokeseg.records.config import TrialConfig
from strokeseg.training.augmentation import augment
from strokeseg.training.cuda_graph import Recording, ready_for_recording, set_rate
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.inference import predict_batch
from strokeseg.training.loss import MixedLoss, loss_weights
from strokeseg.training.memory import memory_gb
from strokeseg.training.pictures import SeenSlice, slices_to_show
from strokeseg.training.precision import Stepper, reduced_type
from strokeseg.training.sampling import cut_batches, draw_epoch
from strokeseg.training.schedule import rate_factor
from strokeseg.training.slice_set import SliceSet
from strokeseg.training.validation import (
    THRESHOLD,
    NotFinite,
    TrialFailure,
    check_finite,
    count_voxels,
    dice_by_case,
)

_log = logging.getLogger(__name__)

_STEPS_BETWEEN_CHECKS = 20


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
        flip: bool = True,
        precision: torch.dtype | None = None,
    ) -> None:
        """Make ready for the first epoch.

        Args:
            network: Logits (B, 1, H, W) of slices (B, C, H, W); moved to the device.
            training: Slices to learn from; those without brain are left out.
            validation: All slices of the cases that score the trial.
            epochs: Epochs of the whole schedule.
            slices_per_epoch: Slices an epoch draws; None for as many as hold brain.
            flip: Whether augmentation may reverse slices along H (see `augment`).
            precision: The type to compute in, float32 or one of 16 bits; None for the one that
                the device is fastest in.

        Raises:
            UserError: When there is nothing to learn from or to score.
        """
        self._training = training.keep(training.holds_brain)
        if not self._training.lesion_voxels.any():
            raise UserError("the training folds show no lesion; check the masks and the splits")
        if len(validation) == 0:
            raise UserError("the validation fold holds no slices; check the splits")
        self._validation = validation
        self._config = config
        self._epochs = epochs
        self._slices = slices_per_epoch or len(self._training)
        self._device = torch.device(device)
        self._seed = seed
        self._flip = flip
        self._epoch = 0
        self._shown: dict[str, int] = {}
        # Module.to knows memory formats, but its declaration does not.
        layout: dict[str, Any] = {"memory_format": torch.channels_last}
        self.network = network.to(self._device, **layout)
        self._loss = MixedLoss(loss_weights(config))
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        ready_for_recording(self._optimiser, self._device)
        kind = precision or reduced_type(self._device, self.network)
        reduced = None if kind is torch.float32 else kind
        self._stepper = Stepper(self._optimiser, self._device, reduced)
        self._draws = torch.Generator(self._device)
        self._records = self._device.type == "cuda"
        self._recording = self._new_recording()

    def run(self) -> Iterator[EpochResult]:
        """Train epoch by epoch, from the one after the last that was finished.

        An epoch in reduced precision whose numbers are not finite is repeated in full precision,
        and so are all after it. One for whose recorded steps a GPU has too little memory is
        repeated without recording them. torch's global generator is seeded again for every epoch,
        for the sake of networks with dropout.

        Raises:
            TrialFailure: When a loss or a probability is not finite, or a batch does not fit the
                device's memory.
        """
        while self._epoch < self._epochs:
            result = self._try_epoch()
            if result is not None:
                self._epoch = result.epoch
                yield result

    def _try_epoch(self) -> EpochResult | None:
        """Run the next epoch; return None where it is to run again in a safer way."""
        can_fall_back = self._stepper.kind is not None or self._recording is not None
        before = deepcopy(self.state()) if can_fall_back else {}
        try:
            return self._run_epoch(self._epoch + 1)
        except NotFinite as failure:
            if self._stepper.kind is None:
                raise
            _log.warning("%s in %s: float32 from here on", failure, self._stepper.kind)
            self.restore({**before, "precision": {"reduced": False}})
            return None
        except torch.OutOfMemoryError as error:
            if self._recording is None:
                raise TrialFailure(
                    f"batches of {self._config.batch_size} slices do not fit the device's memory"
                ) from error
        # Not in the handler, whose exception keeps the tensors of the failed step alive. A
        # recording keeps the memory of a whole step, beside that of an epoch's last one.
        _log.warning("a recorded step leaves too little memory: steps are launched from here on")
        self._records = False
        self.restore(before)
        torch.cuda.empty_cache()
        return None

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: plain values and tensors, not copies."""
        return {
            "epoch": self._epoch,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "precision": self._stepper.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that a training of the same configuration left."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        ready_for_recording(self._optimiser, self._device)
        self._stepper.restore(state["precision"])
        self._recording = self._new_recording()
        self._epoch = int(state["epoch"])

    def seen_slices(self) -> dict[str, SeenSlice]:
        """Return the slices to show of the last epoch's validation.

        Returns:
            By the names of `slices_to_show`; none before the first epoch.
        """
        if not self._shown:
            return {}
        validation = self._validation
        positions = np.array(list(self._shown.values()))
        images, masks = validation.gather(positions, self._device)
        self.network.eval()
        lesion = predict_batch(self.network, images, self._stepper.kind) >= THRESHOLD
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
                self._shown.items(), *layers, strict=True
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
            memory_gb=memory_gb(self._device),
        )

    def _train(self, epoch: int) -> tuple[dict[str, float], float, int]:
        """Train on one draw: mean losses, seconds waited for slices, slices."""
        draw, changes, dropout = np.random.SeedSequence([self._seed, epoch]).spawn(3)
        self._draws.manual_seed(_seed_of(changes))
        torch.manual_seed(_seed_of(dropout))
        plan = self._draw_batches(np.random.default_rng(draw))
        first_step = (epoch - 1) * len(plan)
        self.network.train()
        sums: dict[str, Tensor] = {}
        data_seconds = 0.0
        with closing(self._training.batches(plan, self._device)) as batches:
            for step, batch in enumerate(plan):
                requested = time.perf_counter()
                images, masks = next(batches)
                data_seconds += time.perf_counter() - requested
                factor = rate_factor(first_step + step, self._epochs * len(plan))
                set_rate(self._optimiser, factor * self._config.learning_rate)
                if self._recording is None:
                    losses = self._step(images, masks)
                else:
                    losses = self._recording.take(self._step, images, masks)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + loss * len(batch)
                # A look at the loss waits for the device, so do not look after every step.
                if step % _STEPS_BETWEEN_CHECKS == 0 or step == len(plan) - 1:
                    self._check(sums["total"], f"epoch {epoch}, by step {step + 1}")
        slices = sum(len(batch) for batch in plan)
        return {name: float(loss) / slices for name, loss in sums.items()}, data_seconds, slices

    def _draw_batches(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        has_lesion = self._training.lesion_voxels > 0
        drawn = draw_epoch(has_lesion, self._slices, self._config.lesion_fraction, generator)
        return cut_batches(drawn, self._config.batch_size)

    def _new_recording(self) -> Recording | None:
        return Recording(self._draws, self._device) if self._records else None

    def _step(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Learn from a batch."""
        images, masks = augment(
            images, masks, self._config.augmentation, self._draws, flip=self._flip
        )
        with self._stepper.autocast():
            # Convolutions of a U-Net run 1.2 to 1.6 times as fast channels-last, on CPUs too.
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss, terms = self._loss(logits, masks)
        self._stepper.step(loss, self.network.parameters())
        return {"total": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _check(self, loss: Tensor, where: str) -> None:
        check_finite(loss, where)
        if self._stepper.overflows():
            raise NotFinite(where)

    def _validate(self) -> dict[str, float]:
        """Return the 3D Dice of every validation case."""
        validation = self._validation
        overlap, predicted = count_voxels(
            self.network,
            validation,
            self._device,
            where=f"epoch {self._epoch + 1}, in validation",
            reduced=self._stepper.kind,
        )
        self._shown = slices_to_show(validation.lesion_voxels, overlap, predicted)
        return dice_by_case(validation.cases, overlap, predicted, validation.lesion_voxels)


def _seed_of(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1)[0])
