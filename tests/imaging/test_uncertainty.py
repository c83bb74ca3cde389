"""The disagreement of axes, derived voxel by voxel."""

import numpy as np
import pytest

from strokeseg.imaging.uncertainty import disagreement


def disagreement_of(*probabilities):
    maps = {
        str(number): np.full((2, 1, 1), of, np.float32) for number, of in enumerate(probabilities)
    }
    values = disagreement(maps)
    assert values.shape == (2, 1, 1)
    assert values.dtype == np.float32
    return values[0, 0, 0]


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.7,), 0),
        ((0.2, 0.2), 0),
        ((0.3, 0.3, 0.3), 0),
        # Of two it is their difference.
        ((0.2, 0.7), 0.5),
        # One of three against the others is as divided as three can be.
        ((0, 0, 1), 1),
        ((1, 1, 0), 1),
        # Squared differences 0.25, 0.25 and 1, by the most that three can have, 2.
        ((0, 0.5, 1), np.sqrt(0.75)),
        # Of four, 3 pairs of 6 differ by 1; at most 4 do.
        ((0, 0, 0, 1), np.sqrt(3 / 4)),
        ((0, 0, 1, 1), 1),
    ],
)
def test_disagreement_is_0_where_axes_agree_and_1_where_they_are_divided(probabilities, expected):
    assert disagreement_of(*probabilities) == pytest.approx(expected, abs=1e-6)


def test_equal_probabilities_disagree_by_exactly_nothing():
    generator = np.random.default_rng(0)
    one = generator.random((5, 5, 5), dtype=np.float32)
    assert not disagreement({"axial": one, "coronal": one.copy(), "sagittal": one.copy()}).any()


def test_it_is_the_scaled_standard_deviation_and_leaves_its_maps_alone():
    generator = np.random.default_rng(1)
    maps = {axis: generator.random((4, 5, 6), dtype=np.float32) for axis in "abc"}
    before = {axis: of.copy() for axis, of in maps.items()}
    # Of three numbers from 0 to 1 the largest standard deviation is sqrt(2) / 3.
    expected = np.std(list(maps.values()), axis=0) / (np.sqrt(2) / 3)
    assert disagreement(maps) == pytest.approx(expected, abs=1e-5)
    assert all(np.array_equal(maps[axis], before[axis]) for axis in maps)


@pytest.mark.parametrize(
    "maps",
    [{}, {"axial": np.zeros((2, 2, 2), np.float32), "coronal": np.zeros((2, 2, 1), np.float32)}],
)
def test_maps_that_do_not_fit_are_refused(maps):
    with pytest.raises(ValueError, match="one shape"):
        disagreement(maps)
