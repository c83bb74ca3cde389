"""Lesions: what belongs together, what overlaps, what is too small."""

import numpy as np
import pytest

from strokeseg.imaging.lesions import count_lesions, lesion_volumes_mm3, without_small_lesions


def mask_of(*voxels):
    mask = np.zeros((6, 6, 6), dtype=np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return mask


NOTHING = mask_of()
CORNERS = mask_of((0, 0, 0), (1, 1, 1), (2, 2, 2))
APART = mask_of((0, 0, 0), (2, 2, 2))


@pytest.mark.parametrize(
    ("truth", "prediction", "true", "predicted", "missed", "false", "f1"),
    [
        (NOTHING, NOTHING, 0, 0, 0, 0, None),
        (APART, NOTHING, 2, 0, 2, 0, 0.0),
        (NOTHING, APART, 0, 2, 0, 2, 0.0),
        # Voxels that share a corner are one lesion.
        (CORNERS, CORNERS, 1, 1, 0, 0, 1.0),
        # One predicted lesion finds both true ones.
        (APART, CORNERS, 2, 1, 0, 0, 1.0),
        # Found: 1 of 2; false: 1. 1 / (1 + (1 + 1) / 2).
        (APART, mask_of((2, 2, 2), (5, 5, 5)), 2, 2, 1, 1, 0.5),
        # Neighbours do not overlap.
        (mask_of((0, 0, 0)), mask_of((0, 0, 1)), 1, 1, 1, 1, 0.0),
    ],
)
def test_lesions_are_counted_and_matched(truth, prediction, true, predicted, missed, false, f1):
    counts = count_lesions(truth.astype(bool), prediction.astype(bool))
    assert (counts.true, counts.predicted, counts.missed, counts.false) == (
        *(true, predicted, missed, false),
    )
    assert counts.f1 == f1


# Lesions of 3, 2 and 1 voxels of 1 x 2 x 3 mm: 18, 12 and 6 mm3.
THREE = CORNERS | mask_of((0, 4, 0), (0, 5, 0)) | mask_of((5, 0, 5))
SPACING_MM = (1.0, 2.0, 3.0)


def test_volumes_come_largest_first():
    assert lesion_volumes_mm3(THREE, SPACING_MM).tolist() == [18, 12, 6]
    assert lesion_volumes_mm3(NOTHING, SPACING_MM).tolist() == []


@pytest.mark.parametrize(
    ("smallest_mm3", "kept"), [(0, 6), (6, 6), (6.1, 5), (12, 5), (12.1, 3), (18, 3), (18.1, 0)]
)
def test_only_lesions_below_the_volume_are_dropped(smallest_mm3, kept):
    left = without_small_lesions(THREE, SPACING_MM, smallest_mm3)
    assert left.sum() == kept
    assert left.dtype == np.uint8
    assert not (left & ~THREE).any()


def test_a_mask_without_lesions_stays_as_it_is():
    assert not without_small_lesions(NOTHING, SPACING_MM, 1.0).any()


def test_lesions_of_just_the_volume_stay_where_floats_round_it():
    # Three voxels of 0.7 x 0.7 x 0.7 mm are 1.029 mm3; as floats, a little less.
    assert 3 * np.prod((0.7, 0.7, 0.7)) < 1.029
    assert without_small_lesions(CORNERS, (0.7, 0.7, 0.7), 1.029).sum() == 3
