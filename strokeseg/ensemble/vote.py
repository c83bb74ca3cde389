"""Members, and how they decide together of one case.

This is the one way from a prepared case to a mask, for choosing, evaluating and predicting.
It knows nothing of what computes the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import Predictor, predict_volume
from strokeseg.imaging.prepared import PreparedCase
from strokeseg.imaging.voting import Decision
from strokeseg.records.ensemble import EnsembleRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The members' predictors, in the order of the record, and the record."""

    predictors: tuple[Predictor, ...]
    record: EnsembleRecord


def segment(ensemble: Ensemble, prepared: PreparedCase) -> Decision:
    """Find the lesion in one case, on its native grid.

    Args:
        prepared: The case, prepared with the ensemble's sequences and spacing.

    Raises:
        ValueError: When the case has another number of sequences, or a member's
            probabilities are not finite.
    """
    if len(prepared.images) != len(ensemble.record.sequences):
        raise ValueError(
            f"the case must have the sequences {ensemble.record.sequences}, "
            f"got {len(prepared.images)} channels"
        )
    ballot = ensemble.record.rule.ballot()
    for predictor, probability in predict_members(ensemble.predictors, prepared):
        ballot.add(predictor.axis, probability)
    return ballot.decide(prepared.native_grid.spacing_mm)


def predict_members(
    predictors: Sequence[Predictor], prepared: PreparedCase
) -> Iterator[tuple[Predictor, NDArray[np.float32]]]:
    """Compute the maps of one case, one member after another.

    Yields:
        Each member and its map: the probability of lesion on the case's native grid, (X, Y, Z)
        float32, 0 to 1.

    Raises:
        ValueError: When probabilities are not finite.
    """
    for predictor in predictors:
        yield predictor, prepared.restore(predict_volume(predictor, prepared.images))
