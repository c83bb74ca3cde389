"""What an ensemble would score on the validation patients, from maps that are there already.

A *candidate* is a trial that may become part of the ensemble. A *choice* is a set of
candidates and the rule by which they vote. *Evidence* is all that choices need of one case:
the candidates' probabilities where any of them is high enough to matter, and the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.imaging.lesions import without_small_lesions
from strokeseg.imaging.sparse_map import SparseMap
from strokeseg.records.ensemble import Rule

LOWEST_THRESHOLD = 0.1
# Means of float32 may come out this much above the highest of their terms.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Candidates and the rule by which they vote.

    Attributes:
        members: Axis and name of each candidate, in the order of the ensemble's record.
        rule: How their probabilities become one mask.
    """

    members: tuple[tuple[str, str], ...]
    rule: Rule


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What choices need of one case, on the N voxels where a candidate may see lesion.

    Attributes:
        patient: Whose case it is.
        values: By candidate, (N,) float32, 0 to 1: its probabilities there.
        truth: (N,) bool: the true lesion there.
        true_voxels: Of the whole true lesion.
        places: Where in the box these voxels are: three arrays (N,) of indices X, Y, Z.
        box: The box's shape.
        spacing_mm: Voxel size along the box's axes.
    """

    patient: str
    values: Mapping[str, NDArray[np.float32]]
    truth: NDArray[np.bool_]
    true_voxels: int
    places: tuple[NDArray[np.int32], ...]
    box: tuple[int, ...]
    spacing_mm: tuple[float, float, float]


def gather_evidence(
    patient: str,
    maps: Mapping[str, SparseMap],
    truth: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    lowest_threshold: float,
) -> Evidence:
    """Keep the voxels that can be lesion by any choice: no vote exceeds its highest term.

    Args:
        patient: Whose case it is.
        maps: By candidate, its probabilities; unpacked one at a time.
        truth: (X, Y, Z) uint8, 0 or 1.
        spacing_mm: Voxel size along the maps' axes.
        lowest_threshold: No choice will have a lower one.
    """
    possible = np.zeros(truth.shape, dtype=bool)
    for packed in maps.values():
        possible |= packed.dense() >= lowest_threshold - _ROUNDING
    places = np.nonzero(possible)
    starts = [int(along.min(initial=side)) for along, side in zip(places, truth.shape, strict=True)]
    inside = tuple(
        (along - start).astype(np.int32) for along, start in zip(places, starts, strict=True)
    )
    return Evidence(
        patient=patient,
        values={name: packed.dense()[possible] for name, packed in maps.items()},
        truth=truth[possible].astype(bool),
        true_voxels=int(np.count_nonzero(truth)),
        places=inside,
        box=tuple(int(along.max(initial=-1)) + 1 for along in inside),
        spacing_mm=spacing_mm,
    )


def dice_of(choice: Choice, evidence: Evidence) -> float:
    """3D Dice of what a choice says of a case; 1 when truth and mask are both empty."""
    rule = choice.rule
    # Lesions are found on the box below; a ballot would need the whole volume for them.
    ballot = rule.model_copy(update={"smallest_lesion_mm3": 0.0}).ballot()
    for axis, name in choice.members:
        ballot.add(axis, evidence.values[name])
    mask = ballot.decide(evidence.spacing_mm).mask
    if rule.smallest_lesion_mm3 > 0 and mask.any():
        box = np.zeros(evidence.box, dtype=np.uint8)
        box[evidence.places] = mask
        kept = without_small_lesions(box, evidence.spacing_mm, rule.smallest_lesion_mm3)
        mask = kept[evidence.places]
    predicted = int(np.count_nonzero(mask))
    hits = int(np.count_nonzero(mask[evidence.truth]))
    both = predicted + evidence.true_voxels
    return 2 * hits / both if both else 1.0


class PatientScores:
    """The Dice of any choice for each validation patient; each choice is computed once.

    Args:
        evidence: Of every validation case.
    """

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self.patients = tuple(dict.fromkeys(case.patient for case in evidence))
        self._evidence = tuple(evidence)
        self._known: dict[Choice, NDArray[np.float64]] = {}

    def of(self, choice: Choice) -> NDArray[np.float64]:
        """Return (patients,), the mean 3D Dice over each patient's cases."""
        if choice not in self._known:
            found: dict[str, list[float]] = {patient: [] for patient in self.patients}
            for case in self._evidence:
                found[case.patient].append(dice_of(choice, case))
            self._known[choice] = np.array([np.mean(found[patient]) for patient in self.patients])
        return self._known[choice]
