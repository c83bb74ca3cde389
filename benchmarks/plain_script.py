"""The search that a user of PyTorch and Optuna would write: the other side of benchmarks/plain.py.

One process, trials one after another, torch's own number of threads, slices mapped from .npy
files and loaded by a DataLoader without workers, which is its fastest way beside a network that
trains on the same cores. Nothing of strokeseg is used. A row of log.csv is an epoch.

python benchmarks/plain_script.py FOLDER --trials trials.json --epochs 3 --slices 192
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import optuna
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Slices(Dataset):
    """Slices of one subset, images (4, H, W) and masks (1, H, W), both float32."""

    def __init__(self, folder: Path, subset: str) -> None:
        self.images = np.load(folder / f"{subset}_images.npy", mmap_mode="r")
        self.masks = np.load(folder / f"{subset}_masks.npy", mmap_mode="r")
        self.cases = np.load(folder / f"{subset}_cases.npy")
        self.has_lesion = np.array([bool(mask.any()) for mask in self.masks])

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Return image, mask and case of a slice."""
        image = torch.from_numpy(self.images[index].copy()).float()
        mask = torch.from_numpy(self.masks[index].copy()).float()
        return image, mask[None], str(self.cases[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--slices", type=int, required=True)
    options = parser.parse_args()
    points = json.loads(options.trials.read_text())
    training, validation = Slices(options.folder, "training"), Slices(options.folder, "validation")

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=options.epochs),
    )
    for point in points:
        study.enqueue_trial(point)
    with (options.folder / "log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["trial", "epoch", "train_seconds", "validation_seconds", "dice", "ended"])

        def objective(trial: optuna.Trial) -> float:
            best = 0.0
            for epoch, row in enumerate(run_trial(trial, training, validation, options)):
                log.writerow([trial.number, epoch + 1, *row, time.time()])
                file.flush()
                dice = row[-1]
                best = max(dice, best)
                trial.report(dice, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return best

        study.optimize(objective, n_trials=len(points))
    print(f"best Dice {study.best_value:.3f} with {study.best_params}")


def run_trial(trial, training, validation, options):
    """Train a trial, and give for each epoch seconds of training and validation, and the Dice."""
    encoder = trial.suggest_categorical("encoder", ["tu-tf_efficientnet_lite0", "resnet18"])
    depth = trial.suggest_int("encoder_depth", 3, 5)
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    batch_size = trial.suggest_categorical("batch_size", [8, 16])
    torch.manual_seed(trial.number)
    network = smp.Unet(
        encoder,
        encoder_depth=depth,
        encoder_weights=None,
        decoder_channels=(256, 128, 64, 32, 16)[-depth:],
        in_channels=4,
        classes=1,
    ).to(DEVICE)
    dice_loss = smp.losses.DiceLoss("binary", smooth=1.0)
    cross_entropy = torch.nn.BCEWithLogitsLoss()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)

    lesions = training.has_lesion.mean()
    weights = np.where(training.has_lesion, 0.5 / lesions, 0.5 / (1 - lesions))
    sampler = WeightedRandomSampler(weights.tolist(), num_samples=options.slices)
    training_loader = DataLoader(training, batch_size=batch_size, sampler=sampler)
    validation_loader = DataLoader(validation, batch_size=32)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, T_max=options.epochs * len(training_loader)
    )

    best = -1.0
    for _ in range(options.epochs):
        started = time.perf_counter()
        network.train()
        for images, masks, _ in training_loader:
            truth = masks.to(DEVICE)
            optimiser.zero_grad()
            logits = network(images.to(DEVICE))
            loss = (dice_loss(logits, truth) + cross_entropy(logits, truth)) / 2
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        trained = time.perf_counter()
        dice = validate(network, validation_loader)
        if dice > best:
            best = dice
            torch.save(network.state_dict(), options.folder / f"trial_{trial.number}.pt")
        yield trained - started, time.perf_counter() - trained, dice


@torch.inference_mode()
def validate(network: torch.nn.Module, loader: DataLoader) -> float:
    """Return the mean 3D Dice over the validation cases."""
    network.eval()
    overlap: dict[str, float] = {}
    either: dict[str, float] = {}
    for images, masks, cases in loader:
        truth = masks.to(DEVICE)
        lesion = (network(images.to(DEVICE)).sigmoid() > 0.5).float()
        both = (lesion * truth).sum(dim=(1, 2, 3)).tolist()
        sums = (lesion + truth).sum(dim=(1, 2, 3)).tolist()
        for case, shared, total in zip(cases, both, sums, strict=True):
            overlap[case] = overlap.get(case, 0.0) + shared
            either[case] = either.get(case, 0.0) + total
    scores = [2 * overlap[case] / either[case] if either[case] else 1.0 for case in overlap]
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
