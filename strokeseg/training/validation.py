"""The score of a training: the mean 3D Dice over cases.

Voxels are counted slice by slice and added up over all slices of a case before its Dice is
taken, so that the *objective* is that of volumes and not a mean over slices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from strokeseg.training.inference import predict_batch
from strokeseg.training.precision import reduced_type
from strokeseg.training.slice_set import SliceSet

THRESHOLD = 0.5
_BATCH = 32


class TrialFailure(Exception):  # noqa: N818 - a failed trial is a result, not an error
    """This trial came to nothing; the search goes on."""


class NotFinite(TrialFailure):
    """Numbers are no longer finite."""

    def __init__(self, where: str) -> None:
        super().__init__(f"numbers are no longer finite ({where}); the loss or weights exploded")


def check_finite(value: torch.Tensor | float, where: str) -> None:
    """Check a number, which waits for the device that it is on.

    Raises:
        NotFinite: When it is none.
    """
    if not math.isfinite(value):
        raise NotFinite(where)


def score_slices(
    network: nn.Module, slices: SliceSet, device: torch.device, *, where: str
) -> dict[str, float]:
    """Return the 3D Dice of every case, its voxels counted over those of its slices given.

    Slices without brain are taken for lesion-free without a prediction.

    Args:
        network: Logits (B, 1, H, W) of slices (B, C, H, W), on `device`; in evaluation mode
            afterwards.
        slices: N slices.
        where: When this is, for the failure's message.

    Raises:
        NotFinite: When a probability is not finite.
    """
    overlap, predicted = count_voxels(
        network, slices, device, where=where, reduced=reduced_type(device, network)
    )
    return dice_by_case(slices.cases, overlap, predicted, slices.lesion_voxels)


def count_voxels(
    network: nn.Module,
    slices: SliceSet,
    device: torch.device,
    *,
    where: str,
    reduced: torch.dtype | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count how many lesion voxels of each slice were met, and how many were predicted.

    Args:
        network: As for `score_slices`.
        slices: N slices.
        where: When this is, for the failure's message.
        reduced: The 16-bit type to compute in; None for float32.

    Returns:
        Both (N,), 0 for slices without brain.

    Raises:
        NotFinite: When a probability is not finite.
    """
    # What was met, what was predicted, and how many batches were broken.
    counts = torch.zeros((2, len(slices)), dtype=torch.int64)
    broken = torch.zeros(1, dtype=torch.int64, device=device)
    with_brain = np.flatnonzero(slices.holds_brain)
    plan = [with_brain[start : start + _BATCH] for start in range(0, len(with_brain), _BATCH)]
    network.eval()
    found: list[torch.Tensor] = []
    for images, masks in slices.batches(plan, device):
        probability = predict_batch(network, images, reduced)
        broken += ~probability.sum().isfinite()
        lesion = probability >= THRESHOLD
        # Looked at when all is computed: every look waits for the device.
        found.append(
            torch.stack([(lesion & (masks > 0)).sum(dim=(1, 2, 3)), lesion.sum(dim=(1, 2, 3))])
        )
    if found:
        counts[:, torch.from_numpy(with_brain)] = torch.cat(found, dim=1).cpu()
    if int(broken):
        raise NotFinite(where)
    overlap, predicted = counts.numpy()
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

    Source:
        Dice, Measures of the amount of ecologic association between species, 1945.
    """
    names, positions = np.unique(cases, return_inverse=True)
    both = np.bincount(positions, weights=overlap)
    either = np.bincount(positions, weights=predicted) + np.bincount(positions, weights=true)
    dice = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
    return dict(zip(names.tolist(), dice.tolist(), strict=True))
