"""Members, and how they decide together of one case.

This is the one way from a prepared case to a mask, for choosing, evaluating and predicting.
It knows nothing of what computes the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import Expert, predict_volume
from strokeseg.imaging.prepared import PreparedCase
from strokeseg.imaging.voting import Decision
from strokeseg.records.ensemble import EnsembleRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """Members that can be asked, in the order of the record, and the record."""

    experts: tuple[Expert, ...]
    record: EnsembleRecord


def segment(ensemble: Ensemble, prepared: PreparedCase) -> Decision:
    """Find the lesion in one case, on its native grid.

    Args:
        ensemble: The members.
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
    for expert, probability in ask_all(ensemble.experts, prepared):
        ballot.add(expert.axis, probability)
    return ballot.decide(prepared.native_grid.spacing_mm)


def ask_all(
    experts: Sequence[Expert], prepared: PreparedCase
) -> Iterator[tuple[Expert, NDArray[np.float32]]]:
    """Ask members of one case, one after another.

    Yields:
        Each member and its map: the probability of lesion on the case's native grid, (X, Y, Z)
        float32, 0 to 1.

    Raises:
        ValueError: When probabilities are not finite.
    """
    for expert in experts:
        yield expert, prepared.restore(predict_volume(expert, prepared.images))
