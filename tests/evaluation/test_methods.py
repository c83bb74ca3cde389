from __future__ import annotations

import numpy as np
import pytest

from strokeseg.ensemble.slicewise import Predictor
from strokeseg.evaluation.methods import all_members, apply_methods, votes_of
from strokeseg.records.ensemble import EnsembleRecord


def record(**rule: object) -> EnsembleRecord:
    """Two axial members, one along each other axis, and a comparison with a fifth."""
    return EnsembleRecord.model_validate(
        {
            "name": "toy",
            "sequences": ("DWI",),
            "rule": rule,
            "members": {
                "axial": ("axial-0000.safetensors", "axial-0001.safetensors"),
                "coronal": ("coronal-0000.safetensors",),
                "sagittal": ("sagittal-0000.safetensors",),
            },
            "comparison": {
                "scratch": {
                    "axial": ("axial-0001.safetensors",),
                    "coronal": ("coronal-0000.safetensors",),
                    "sagittal": ("sagittal-0007.safetensors",),
                }
            },
            "preparation_hash": "abc",
            "code_version": "1",
        }
    )


# One voxel each: what the five members give, and what must come out.
MAPS = {
    "axial-0000": [0.9, 0.9, 0.2],
    "axial-0001": [0.0, 0.7, 0.9],
    "coronal-0000": [0.6, 0.4, 0.5],
    "sagittal-0000": [0.6, 0.4, 0.1],
    "sagittal-0007": [0.4, 0.6, 0.4],
}


def maps() -> list[tuple[Predictor, np.ndarray]]:
    return [
        (
            Predictor(
                name=name, axis=name.partition("-")[0], slice_size=None, predict=lambda x: x[:, 0]
            ),
            np.array(values, dtype=np.float32).reshape(3, 1, 1),
        )
        for name, values in MAPS.items()
    ]


EXPECTED = {
    # Means of the two axial members: 0.45, 0.8, 0.55.
    "axial": [0, 1, 1],
    "coronal": [1, 0, 1],
    "sagittal": [1, 0, 0],
    # Two of three axes.
    "vote_hard": [1, 0, 1],
    # Means of the axes: 0.55, 0.533, 0.383.
    "vote_soft": [1, 1, 0],
    # axial-0001 says 0 1 1, coronal 1 0 1, sagittal-0007 0 1 0.
    "vote_scratch": [0, 1, 1],
    "axial-0000": [1, 1, 0],
    "axial-0001": [0, 1, 1],
    "coronal-0000": [1, 0, 1],
    "sagittal-0000": [1, 0, 0],
    "sagittal-0007": [0, 1, 0],
}


@pytest.mark.parametrize(
    ("rule", "vote"),
    [
        ({}, [1, 0, 1]),
        ({"between": "soft"}, [1, 1, 0]),
        # No voxel of 1 mm3 has a neighbour but the middle one, which is not lesion.
        ({"smallest_lesion_mm3": 2.0}, [0, 0, 0]),
    ],
)
def test_every_member_axis_and_vote_has_its_mask(rule: dict[str, object], vote: list[int]) -> None:
    methods = apply_methods(record(**rule), maps(), (1.0, 1.0, 1.0))
    found = {method: mask.ravel().tolist() for method, mask in methods.masks.items()}
    assert found == {**EXPECTED, "vote": vote}
    assert methods.kinds.keys() == methods.masks.keys()
    assert methods.kinds["vote_scratch"] == "comparison"
    assert methods.kinds["vote_soft"] == methods.kinds["vote"] == "vote"
    assert (methods.kinds["axial"], methods.kinds["axial-0000"]) == ("axis", "member")


def test_a_vote_within_an_axis_does_not_reach_the_plain_votes() -> None:
    methods = apply_methods(record(within="vote"), maps(), (1.0, 1.0, 1.0))
    # Of two members both must agree: 0 1 0.
    assert methods.masks["axial"].ravel().tolist() == [0, 1, 0]
    assert methods.masks["vote"].ravel().tolist() == [1, 0, 0]
    assert methods.masks["vote_hard"].ravel().tolist() == EXPECTED["vote_hard"]


def test_all_votes_keep_the_ensembles_threshold() -> None:
    assert {vote.rule.threshold for vote in votes_of(record(threshold=0.3))} == {0.3}


def test_every_member_is_asked_once() -> None:
    assert all_members(record()) == {
        "axial": ("axial-0000.safetensors", "axial-0001.safetensors"),
        "coronal": ("coronal-0000.safetensors",),
        "sagittal": ("sagittal-0000.safetensors", "sagittal-0007.safetensors"),
    }
