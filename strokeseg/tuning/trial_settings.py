"""What all trials of one axis share; sent to every process that runs one."""

from __future__ import annotations

from dataclasses import dataclass

from strokeseg.compute.allotment import Allotment


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What all trials of a study share.

    Attributes:
        axis: The study's axis.
        epochs: Epochs of a trial that is never stopped early.
        slices_per_epoch: Training slices an epoch; None for all there are.
        seed: The study's seed.
        folds: The cases of each fold.
        validation_fold: The fold that scores trials, the others train; None for k-fold
            scoring, one fold after the other.
        trials_folder: Where trials leave their files; every node sees it.
        tensorboard_folder: Where they leave their pictures; every node sees it.
        allotment: What each trial gets.
        deterministic: Whether equal seeds must give equal numbers, whatever it costs.
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
    allotment: Allotment
    deterministic: bool
    sequences: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    preparation_hash: str
    code_version: str
