"""Votes: how the probabilities of several networks become one mask.

A *ballot* collects the maps of one case, a map a member, each on the case's native grid. The
members of one axis decide together *within* it: the `mean` of their probabilities is compared
with the threshold, or each is and their `vote` counts. The axes decide *between* them: `hard`
lets each axis's mask count as a vote, of which more than half must say lesion; `soft` compares
the mean of the axes' probabilities with the threshold. Lesions that are too small to be believed
are dropped at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strokeseg.imaging.lesions import without_small_lesions

Within: TypeAlias = Literal["mean", "vote"]
Between: TypeAlias = Literal["hard", "soft"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What a ballot says of one case.

    Attributes:
        mask: (X, Y, Z) uint8, 0 or 1.
        axis_masks: By axis, (X, Y, Z) uint8, 0 or 1, small lesions included.
        axis_probabilities: By axis, (X, Y, Z) float32, 0 to 1, the mean over its members.
        probability: (X, Y, Z) float32, 0 to 1, the mean over the axes.
    """

    mask: NDArray[np.uint8]
    axis_masks: dict[str, NDArray[np.uint8]]
    axis_probabilities: dict[str, NDArray[np.float32]]
    probability: NDArray[np.float32]


class Ballot:
    """The maps of one case, one after another; only sums of them are kept.

    Args:
        within: How the members of an axis decide together.
        between: How the axes do.
        threshold: Probability from which a voxel is lesion.
        smallest_lesion_mm3: Lesions (26-connected) below this volume are dropped; 0 keeps all.
    """

    def __init__(
        self,
        *,
        within: Within = "mean",
        between: Between = "hard",
        threshold: float = 0.5,
        smallest_lesion_mm3: float = 0.0,
    ) -> None:
        self._within, self._between = within, between
        self._threshold = np.float32(threshold)
        self._smallest_lesion_mm3 = smallest_lesion_mm3
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._votes: dict[str, NDArray[np.uint8]] = {}
        self._counts: dict[str, int] = {}

    def add(self, axis: str, probability: NDArray[np.float32]) -> None:
        """Count one member's map; equal maps in equal order decide equally to the last bit.

        Args:
            probability: (X, Y, Z) float32, 0 to 1, of one shape for all.

        Raises:
            ValueError: When the shape is another than before.
        """
        if any(held.shape != probability.shape for held in self._sums.values()):
            raise ValueError(f"a ballot needs maps of one shape, got {probability.shape} as well")
        if axis not in self._sums:
            self._sums[axis] = probability.astype(np.float32)
            self._votes[axis] = (probability >= self._threshold).astype(np.uint8)
        else:
            self._sums[axis] += probability
            self._votes[axis] += probability >= self._threshold
        self._counts[axis] = self._counts.get(axis, 0) + 1

    def decide(self, spacing_mm: tuple[float, float, float]) -> Decision:
        """Return what the maps that were added say together; a tie is lesion-free.

        Args:
            spacing_mm: Voxel size along the maps' axes.

        Raises:
            ValueError: When nothing was added.
        """
        if not self._sums:
            raise ValueError("a ballot needs maps, got none")
        means = {axis: total / np.float32(self._counts[axis]) for axis, total in self._sums.items()}
        if self._within == "mean":
            decided = {axis: mean >= self._threshold for axis, mean in means.items()}
        else:
            decided = {
                axis: 2 * votes.astype(np.uint16) > self._counts[axis]
                for axis, votes in self._votes.items()
            }
        masks = {axis: flags.astype(np.uint8) for axis, flags in decided.items()}
        probability = _mean(means)
        if self._between == "soft":
            mask = (probability >= self._threshold).astype(np.uint8)
        else:
            mask = (_mean(masks) > np.float32(0.5)).astype(np.uint8)
        if self._smallest_lesion_mm3 > 0:
            mask = without_small_lesions(mask, spacing_mm, self._smallest_lesion_mm3)
        return Decision(
            mask=mask, axis_masks=masks, axis_probabilities=means, probability=probability
        )


def _mean(maps: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    total = np.zeros(next(iter(maps.values())).shape, dtype=np.float32)
    for values in maps.values():
        total += values.astype(np.float32, copy=False)
    total /= np.float32(len(maps))
    return total
