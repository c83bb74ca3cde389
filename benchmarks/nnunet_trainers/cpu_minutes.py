"""nnU-Net's own trainer, until a budget of CPU time is spent instead of 1,000 epochs.

Found by nnU-Net through `nnUNet_extTrainer`; see benchmarks/nnunet_train.py. The learning rate
falls along nnU-Net's polynomial, over the share of the budget instead of that of the epochs; all
else is nnU-Net's. An *epoch* is short, so that the budget is kept to half a minute or so.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_CPU = torch.device("cpu")


class CPUMinutesTrainer(nnUNetTrainer):
    """Trains for `NNUNET_CPU_MINUTES` of this process's CPU time, validation included."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = _CPU,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 5
        self.num_val_iterations_per_epoch = 1
        self._budget_seconds = 60 * float(os.environ["NNUNET_CPU_MINUTES"])
        self._started = 0.0

    def on_train_epoch_start(self) -> None:
        """Set the learning rate by the share of the budget that is spent."""
        super().on_train_epoch_start()
        self.lr_scheduler.step(self._share_spent() * self.num_epochs)

    def run_training(self) -> None:
        """Train until the budget is spent, and tell how far that went."""
        self.on_train_start()
        self._started = time.process_time()
        while self._share_spent() < 1:
            self.on_epoch_start()
            self.on_train_epoch_start()
            steps = range(self.num_iterations_per_epoch)
            self.on_train_epoch_end([self.train_step(next(self.dataloader_train)) for _ in steps])
            with torch.no_grad():
                self.on_validation_epoch_start()
                looks = range(self.num_val_iterations_per_epoch)
                self.on_validation_epoch_end(
                    [self.validation_step(next(self.dataloader_val)) for _ in looks]
                )
            self.on_epoch_end()
        minutes = (time.process_time() - self._started) / 60
        iterations = self.current_epoch * self.num_iterations_per_epoch
        print(f"trained {minutes:.1f} CPU minutes, {iterations} iterations", flush=True)
        self.on_train_end()

    def _share_spent(self) -> float:
        return min(1.0, (time.process_time() - self._started) / self._budget_seconds)
