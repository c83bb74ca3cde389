"""Metrics: how well a predicted mask agrees with the true one, in three dimensions.

A voxel is a *true positive* when both masks call it lesion. All voxels of a case count
together, never slice by slice. Distances are those of `surfaces`, lesions those of `lesions`.

A *policy* says what holds where a mask is empty:

    isles22   both empty: every score is perfect (1, distances 0), "no lesion" was right; one
              empty: Dice, sensitivity, precision and F1 are 0, distances the volume's diagonal
    isles15   as medpy did then, by that challenge's organiser: Dice, sensitivity, precision and F1
              are 0 where they would divide by 0, also for two empty masks; a case with a Dice of 0
              has failed, and its distances are undefined
    nnunet    as nnU-Net's evaluation: what would divide by 0 is undefined, and so are distances

What is *undefined* is None and stays out of means, never a number. Where the masks overlap,
policies differ in the ASSD alone: that of `isles15` is the mean of the two directions' means. The
Hausdorff distance that ISLES 2015 ranked by is `hd_mm`, not `hd95_mm`.

Source: Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging
stroke lesion segmentation dataset", Scientific Data 9 (2022); Maier et al., "ISLES 2015 - A public
evaluation benchmark for ischemic stroke lesion segmentation from multispectral MRI", Medical
Image Analysis 35 (2017), table 7; Isensee et al., nnU-Net, Nature Methods 18 (2021). ISLES 2022
ranked without distances: that those to an empty mask are the volume's diagonal is our choice, the
largest that the volume has room for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from strokeseg.imaging.lesions import count_lesions
from strokeseg.imaging.metric_names import POLICIES, Policy
from strokeseg.imaging.surfaces import SurfaceDistances, surface_distances, union_box

MM3_PER_ML = 1000.0

Spacing: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Agreement of two masks; None where the policy leaves a score undefined.

    Attributes:
        dice: 2 TP / (true + predicted), 0 to 1.
        sensitivity: TP / true, 0 to 1.
        precision: TP / predicted, 0 to 1.
        hd95_mm: 95th percentile of the border distances of both directions, pooled.
        hd_mm: The largest of them, the Hausdorff distance.
        assd_mm: Average symmetric surface distance: the mean of all border distances, but under
            the policy isles15 that of the two directions' means.
        volume_difference_ml: |predicted - true| volume.
        lesion_f1: F1 over lesions; a true lesion is found when one voxel of it is.
        lesion_count_difference: |predicted lesions - true lesions|.
        accuracy: Share of voxels, background included, that both masks call alike.
        accuracy_empty: The accuracy of an empty mask, without which that number says nothing.
        true_ml: Volume of the true lesion.
        predicted_ml: Volume of the predicted lesion.
        true_lesions: Number of true lesions.
        predicted_lesions: Number of predicted lesions.
        missed_lesions: True lesions without a predicted voxel.
        false_lesions: Predicted lesions without a true voxel.
        missed: 1 when exactly one mask is empty, so that there are no distances, else 0.
    """

    dice: float | None
    sensitivity: float | None
    precision: float | None
    hd95_mm: float | None
    hd_mm: float | None
    assd_mm: float | None
    volume_difference_ml: float
    lesion_f1: float | None
    lesion_count_difference: int
    accuracy: float
    accuracy_empty: float
    true_ml: float
    predicted_ml: float
    true_lesions: int
    predicted_lesions: int
    missed_lesions: int
    false_lesions: int
    missed: int


def volume_ml(mask: NDArray[np.generic], spacing_mm: Spacing) -> float:
    """Volume of a mask's lesion.

    Args:
        mask: (X, Y, Z); every voxel that is not 0 counts.
        spacing_mm: Voxel size along the mask's axes.
    """
    return int(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / MM3_PER_ML


def score_masks(
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    spacing_mm: Spacing,
    *,
    policy: Policy = "isles22",
) -> Scores:
    """Score a predicted mask against the true one.

    Args:
        truth: (X, Y, Z) bool or integer, 0 and 1.
        prediction: The same shape and values, on the same grid.
        spacing_mm: Voxel size along the masks' axes.
        policy: What holds where a mask is empty; see the module.

    Raises:
        ValueError: When the shapes differ, a mask holds anything but 0 and 1, or there is no
            such policy.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"masks must share a shape, got {truth.shape} and {prediction.shape}")
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    true, predicted = _as_bool(truth), _as_bool(prediction)
    # Everything but accuracy and the diagonal is decided inside the box that holds both.
    box = union_box(true, predicted)
    true_box, predicted_box = np.ascontiguousarray(true[box]), np.ascontiguousarray(predicted[box])
    true_count, predicted_count = (int(np.count_nonzero(m)) for m in (true_box, predicted_box))
    hits = int(np.count_nonzero(true_box & predicted_box))
    lesions = count_lesions(true_box, predicted_box)
    empty = _Empty(policy, both_empty=true_count == predicted_count == 0)
    missed = (true_count == 0) != (predicted_count == 0)
    distances = (
        surface_distances(true_box, predicted_box, spacing_mm)
        if true_count and predicted_count and (hits or policy != "isles15")
        else empty.distances(_diagonal_mm(truth.shape, spacing_mm))
    )
    voxel_ml = float(np.prod(spacing_mm)) / MM3_PER_ML
    wrong = true_count + predicted_count - 2 * hits
    return Scores(
        dice=empty.ratio(2 * hits, true_count + predicted_count),
        sensitivity=empty.ratio(hits, true_count),
        precision=empty.ratio(hits, predicted_count),
        hd95_mm=distances.hd95_mm if distances else None,
        hd_mm=distances.hd_mm if distances else None,
        assd_mm=_assd_mm(distances, policy),
        volume_difference_ml=abs(predicted_count - true_count) * voxel_ml,
        lesion_f1=empty.ratio(0, 0) if lesions.f1 is None else lesions.f1,
        lesion_count_difference=abs(lesions.predicted - lesions.true),
        accuracy=1 - wrong / truth.size,
        accuracy_empty=1 - true_count / truth.size,
        true_ml=true_count * voxel_ml,
        predicted_ml=predicted_count * voxel_ml,
        true_lesions=lesions.true,
        predicted_lesions=lesions.predicted,
        missed_lesions=lesions.missed,
        false_lesions=lesions.false,
        missed=int(missed),
    )


@dataclass(frozen=True)
class _Empty:
    """What a policy says where something is divided by 0."""

    policy: Policy
    both_empty: bool

    def ratio(self, numerator: int, denominator: int) -> float | None:
        if denominator:
            return numerator / denominator
        if self.policy == "nnunet":
            return None
        return 1.0 if self.both_empty and self.policy == "isles22" else 0.0

    def distances(self, diagonal_mm: float) -> SurfaceDistances | None:
        if self.policy != "isles22":
            return None
        distance = 0.0 if self.both_empty else diagonal_mm
        return SurfaceDistances(
            hd_mm=distance, hd95_mm=distance, assd_mm=distance, mean_of_means_mm=distance
        )


def _assd_mm(distances: SurfaceDistances | None, policy: Policy) -> float | None:
    if distances is None:
        return None
    return distances.mean_of_means_mm if policy == "isles15" else distances.assd_mm


def _diagonal_mm(shape: tuple[int, ...], spacing_mm: Spacing) -> float:
    return float(np.linalg.norm(np.array(shape) * spacing_mm))


def _as_bool(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    flags = mask.astype(bool)
    # Of numbers that none is negative and none is above 1, all are 0 or 1.
    if mask.dtype.kind not in "bui" or (mask.size and not 0 <= mask.min() <= mask.max() <= 1):
        raise ValueError(f"a mask must hold the integers 0 and 1 only, got {mask.dtype} values")
    return flags
