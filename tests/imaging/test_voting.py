"""Ballots: every way that members and axes can decide together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from strokeseg.imaging.voting import Ballot, Decision

_UNIT = (1.0, 1.0, 1.0)


def _decide(ballot: Ballot, maps: Mapping[str, Sequence[Sequence[float]]]) -> Decision:
    """Decide of maps that are a row of voxels each, by axis."""
    for axis, of_axis in maps.items():
        for row in of_axis:
            ballot.add(axis, np.array(row, dtype=np.float32).reshape(-1, 1, 1))
    return ballot.decide(_UNIT)


def test_three_axes_vote_by_majority() -> None:
    # All eight ways that three axes can see a voxel.
    seen = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    axes = {"axial": [seen[:, 0]], "coronal": [seen[:, 1]], "sagittal": [seen[:, 2]]}
    mask = _decide(Ballot(), axes).mask
    #                                 000 001 010 011 100 101 110 111
    assert mask.ravel().tolist() == [0, 0, 0, 1, 0, 1, 1, 1]
    assert mask.dtype == np.uint8


def test_of_two_axes_both_must_agree_and_one_decides_alone() -> None:
    first, second = [0, 0, 1, 1], [0, 1, 0, 1]
    both = _decide(Ballot(), {"axial": [first], "coronal": [second]})
    assert both.mask.ravel().tolist() == [0, 0, 0, 1]
    assert _decide(Ballot(), {"axial": [first]}).mask.ravel().tolist() == first


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Axial 0.9 and 0.2 (mean 0.55), coronal 0.4: one axis of two.
        ({}, 0),
        # The mean of 0.55 and 0.4 is 0.475.
        ({"between": "soft"}, 0),
        ({"between": "soft", "threshold": 0.45}, 1),
        # Each member against 0.3: coronal's, but of axial's one of two, a tie.
        ({"threshold": 0.3}, 1),
        ({"within": "vote", "threshold": 0.3}, 0),
    ],
)
def test_rules_decide_as_derived_by_hand(rule: dict[str, object], expected: int) -> None:
    ballot = Ballot(**rule)  # type: ignore[arg-type]
    assert _decide(ballot, {"axial": [[0.9], [0.2]], "coronal": [[0.4]]}).mask.item() == expected


def test_small_lesions_are_dropped_by_volume_and_axes_keep_them() -> None:
    ballot = Ballot(smallest_lesion_mm3=16.0)
    ballot.add("axial", np.array([1, 0, 1, 1], dtype=np.float32).reshape(4, 1, 1))
    # Voxels of 8 mm3: a lesion of one, and one of two.
    decision = ballot.decide((2.0, 2.0, 2.0))
    assert decision.mask.ravel().tolist() == [0, 0, 1, 1]
    assert decision.axis_masks["axial"].ravel().tolist() == [1, 0, 1, 1]


def test_maps_of_different_shapes_and_none_cannot_vote() -> None:
    ballot = Ballot()
    with pytest.raises(ValueError, match="got none"):
        ballot.decide(_UNIT)
    ballot.add("axial", np.zeros((2, 1, 1), dtype=np.float32))
    with pytest.raises(ValueError, match="one shape"):
        ballot.add("coronal", np.zeros((3, 1, 1), dtype=np.float32))
