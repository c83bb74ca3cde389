"""Scores of masks whose overlap can be counted by hand."""

import numpy as np
import pytest

from strokeseg.imaging.metrics import score_masks, volume_ml


def box(*bounds):
    mask = np.zeros((10, 10, 10), dtype=np.uint8)
    mask[tuple(slice(*bound) for bound in bounds)] = 1
    return mask


def test_shifted_cubes_on_an_anisotropic_grid():
    # Two cubes of 4^3 = 64 voxels, shifted by one along x: 3 * 4 * 4 = 48 voxels overlap.
    # The prediction has one more layer along z: 4 * 4 * 5 = 80 voxels. A voxel of
    # 1 x 2 x 5 mm is 0.01 ml.
    scores = score_masks(
        box((1, 5), (1, 5), (1, 5)), box((2, 6), (1, 5), (1, 6)), spacing_mm=(1.0, 2.0, 5.0)
    )
    assert scores.dice == pytest.approx(2 * 48 / (64 + 80))
    assert scores.sensitivity == pytest.approx(48 / 64)
    assert scores.precision == pytest.approx(48 / 80)
    assert scores.true_ml == pytest.approx(0.64)
    assert scores.predicted_ml == pytest.approx(0.80)
    assert scores.volume_difference_ml == pytest.approx(0.16)


NOTHING, CUBE = box((0, 0), (0, 0), (0, 0)), box((1, 5), (1, 5), (1, 5))


@pytest.mark.parametrize(
    ("truth", "prediction", "score", "difference_ml"),
    [
        (NOTHING, NOTHING, 1.0, 0.0),
        (CUBE, NOTHING, 0.0, 0.064),
        (NOTHING, CUBE, 0.0, 0.064),
        (CUBE, CUBE, 1.0, 0.0),
        (CUBE, box((5, 9), (5, 9), (5, 9)), 0.0, 0.0),
    ],
)
def test_empty_equal_and_disjoint_masks(truth, prediction, score, difference_ml):
    scores = score_masks(truth, prediction, spacing_mm=(1.0, 1.0, 1.0))
    assert (scores.dice, scores.sensitivity, scores.precision) == (score, score, score)
    assert scores.volume_difference_ml == pytest.approx(difference_ml)


def test_bool_and_integer_masks_score_alike():
    assert score_masks(CUBE.astype(bool), CUBE.astype(np.int64), (1, 1, 1)).dice == 1.0


@pytest.mark.parametrize("prediction", [CUBE * 255, CUBE * 0.5, CUBE.astype(np.float32)])
def test_anything_but_a_mask_is_refused(prediction):
    with pytest.raises(ValueError, match="0 and 1"):
        score_masks(CUBE, prediction, (1.0, 1.0, 1.0))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="share a shape"):
        score_masks(CUBE, CUBE[1:], (1.0, 1.0, 1.0))


def test_volume_is_voxels_times_voxel_size():
    # 64 voxels of 0.5 x 0.5 x 4 mm = 64 mm3.
    assert volume_ml(CUBE, (0.5, 0.5, 4.0)) == pytest.approx(0.064)
