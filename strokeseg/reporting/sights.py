"""The cases that a report shows, as they are seen: images with truth and prediction.

A *sight* is a case on its own voxels in RAS+ order, cropped to the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import CaseError
from strokeseg.imaging.brain import window
from strokeseg.imaging.cases import mask_name
from strokeseg.imaging.prepared import prepare_case
from strokeseg.imaging.volume import read_volume, to_ras
from strokeseg.reporting.facts import Facts
from strokeseg.summary import VOTE, ScoreRow

# Where strokes are seen best; of other sequences the first ones are shown.
_TELLING = ("DWI", "FLAIR")
_SHOWN = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """A case as it is seen.

    Attributes:
        rank: `worst`, `median` or `best` by the Dice of the vote.
        case: Its name.
        dice: Of the vote.
        sequences: Names of the channels that are shown.
        images: (C, X, Y, Z) float32 in RAS+ order, z-scored, 0 outside the brain.
        truth: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool, of the vote.
        spacing_mm: Voxel size (x, y, z).
    """

    rank: str
    case: str
    dice: float
    sequences: Sequence[str]
    images: NDArray[np.float32]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]


def telling_cases(scores: Sequence[ScoreRow]) -> dict[str, ScoreRow]:
    """Choose the worst, the median (of two the lower) and the best case; of few, no case twice.

    Args:
        scores: A row a case.
    """
    known = [row for row in scores if row.values["dice"] is not None]
    known.sort(key=lambda row: (row.values["dice"] or 0.0, row.case))
    places = {"worst": 0, "best": len(known) - 1, "median": (len(known) - 1) // 2}
    chosen: dict[str, ScoreRow] = {}
    for rank, place in places.items():
        if known and known[place] not in chosen.values():
            chosen[rank] = known[place]
    return {rank: chosen[rank] for rank in ("worst", "median", "best") if rank in chosen}


def read_sights(facts: Facts) -> tuple[list[Sight], dict[str, str]]:
    """Read the cases that tell most.

    Returns:
        The sights, worst first, and by case why there is none of it: files of the case or masks
        may have moved since they were scored, which is no reason to go without a report.
    """
    sights, missing = [], {}
    for rank, row in telling_cases(facts.vote_scores).items():
        try:
            sights.append(_read(facts, rank, row))
        except CaseError as error:
            missing[row.case] = str(error)
    return sights, missing


def _read(facts: Facts, rank: str, row: ScoreRow) -> Sight:
    case, record = facts.preparation.cases[row.case], facts.ensemble
    prepared = prepare_case(
        case.images,
        sequences=record.sequences,
        mask=case.mask,
        lesion_labels=facts.experiment.config.data.lesion_labels,
        reference=record.reference,
    )
    # On the case's own voxels, so that truth and prediction are shown as they were scored.
    path = facts.experiment.masks_folder(facts.summary["on"]) / mask_name(case.name, VOTE)
    found = read_volume(path)
    if not found.grid.matches(prepared.native_grid):
        raise CaseError(f"{path}: lies on another grid than case {case.name}; evaluate anew")
    x, y, z = prepared.images.shape[1:]
    prediction = to_ras(found).voxels[window(prepared.crop_start, (x, y, z))] > 0
    if prepared.mask is None:
        raise CaseError(f"case {case.name} has no lesion mask any more")
    telling = [name for name in _TELLING if name in record.sequences]
    shown = (telling or record.sequences)[:_SHOWN]
    return Sight(
        rank=rank,
        case=case.name,
        dice=row.values["dice"] or 0.0,
        sequences=shown,
        images=prepared.images[[record.sequences.index(name) for name in shown]],
        truth=prepared.mask > 0,
        prediction=prediction,
        spacing_mm=prepared.spacing_mm,
    )
