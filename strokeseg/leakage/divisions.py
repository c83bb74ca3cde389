"""The same slices divided in two ways, and what a training says of each division.

The *pool* is the slices that a search trains on. A *patient-level* division keeps all
slices of a patient in one subset; a *slice-level* one deals slices out at random, so that
neighbours of one patient, which are nearly copies, lie in both subsets. The *printed* score
is the best one on the division's own validation slices, as a search would choose and
report it; the *unseen* score is that of the same weights on patients outside the pool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.slice_set import SliceSet
from strokeseg.training.validation import score_slices


@dataclass(frozen=True, kw_only=True, eq=False)
class Division:
    """A pool's training and validation subsets."""

    training: SliceSet
    validation: SliceSet

    @property
    def shared_cases(self) -> int:
        """Number of cases with slices in both subsets."""
        return len(np.intersect1d(self.training.cases, self.validation.cases))

    @property
    def validation_cases(self) -> int:
        """Number of cases with slices in the validation subset."""
        return len(np.unique(self.validation.cases))

    @property
    def lesion_free_cases(self) -> int:
        """Number of those cases none of whose validation slices shows a lesion."""
        shown = self.validation.cases[self.validation.lesion_voxels > 0]
        return self.validation_cases - len(np.unique(shown))


@dataclass(frozen=True, kw_only=True)
class BestWeightsScore:
    """What one training printed and what it was worth.

    Attributes:
        printed_dice: Mean 3D Dice over the cases of its own validation slices, 0 to 1.
        unseen_dice: Mean 3D Dice of the same weights over the unseen cases, 0 to 1.
        best_epoch: Epoch of these weights, from 1.
    """

    printed_dice: float
    unseen_dice: float
    best_epoch: int


def divide_by_patient(pool: SliceSet, validation_cases: Collection[str]) -> Division:
    """Divide a pool by patient; `validation_cases` are all cases of those who validate."""
    trains = ~np.isin(pool.cases, sorted(set(validation_cases)))
    return Division(training=pool.keep(trains), validation=pool.keep(~trains))


def divide_by_slice(pool: SliceSet, validation_cases: Collection[str], seed: int) -> Division:
    """Divide a pool by slice, into subsets of the same make-up as `divide_by_patient` gives.

    That division is shuffled among slices of one kind (without brain, with brain, with
    lesion): as many of each kind train, and only whose they are differs.
    """
    trains = ~np.isin(pool.cases, sorted(set(validation_cases)))
    kinds = pool.holds_brain.astype(np.int64) + (pool.lesion_voxels > 0)
    trains = shuffle_within(trains, kinds, np.random.default_rng(seed))
    return Division(training=pool.keep(trains), validation=pool.keep(~trains))


def shuffle_within(
    flags: NDArray[np.bool_], kinds: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Return flags, (N,) bool, shuffled among the places of each kind, (N,) int64."""
    shuffled = flags.copy()
    for kind in np.unique(kinds):
        places = np.flatnonzero(kinds == kind)
        shuffled[places] = generator.permutation(flags[places])
    return shuffled


def measure(
    training: Training, unseen: SliceSet, device: torch.device
) -> Iterator[EpochResult | BestWeightsScore]:
    """Train to the end and yield every epoch's result, then what its best weights score.

    Args:
        training: A training that has not begun, on the training subset of a division, validated on
            the other.
        unseen: All slices of cases outside the pool.

    Raises:
        TrialFailure: When a loss or a probability is not finite, or the device is full.
    """
    best: EpochResult | None = None
    weights: dict[str, Any] = {}
    for result in training.run():
        if best is None or result.dice > best.dice:
            best = result
            state = training.network.state_dict()
            weights = {name: tensor.detach().clone() for name, tensor in state.items()}
        yield result
    if best is None:
        raise ValueError("a measurement needs a training with epochs left to run, got none")
    training.network.load_state_dict(weights)
    where = f"epoch {best.epoch}, on unseen patients"
    case_dice = score_slices(training.network, unseen, device, where=where)
    yield BestWeightsScore(
        printed_dice=best.dice, unseen_dice=fmean(case_dice.values()), best_epoch=best.epoch
    )
