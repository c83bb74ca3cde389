"""Background, brain, box and normalisation."""

import numpy as np
import pytest

from strokeseg.errors import CaseError
from strokeseg.imaging.brain import (
    bounding_box,
    find_brain,
    normalise,
    window,
    without_background,
)


def image(background=0.0):
    voxels = np.full((8, 9, 10), background, dtype=np.float32)
    voxels[2:5, 3:7, 1:9] = np.random.default_rng(0).normal(20, 5, size=(3, 4, 8))
    return voxels


@pytest.mark.parametrize("background", [0.0, -0.7, -3.6243944, 1024.0])
def test_whatever_the_background_is_it_becomes_zero(background):
    shifted = without_background(image(background), "a")
    np.testing.assert_array_equal(shifted != 0, image(0.0) != 0)
    assert shifted.dtype == np.float32


def test_a_brain_that_touches_the_border_is_kept():
    voxels = image()
    voxels[0, 3:7, 3:7] = 30
    assert np.count_nonzero(without_background(voxels, "a")) == 3 * 4 * 8 + 16


def test_images_that_show_nothing_and_noise_without_background_are_refused():
    with pytest.raises(CaseError, match="T1 must show something, every voxel is 5"):
        without_background(np.full((3, 3, 3), 5, dtype=np.float32), "T1")
    noise = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    with pytest.raises(CaseError, match="T1 must have one background value"):
        without_background(noise, "T1")


def test_the_brain_is_where_any_image_has_foreground():
    other = np.zeros((8, 9, 10), dtype=np.float32)
    other[6, 3, 1] = -1
    brain = find_brain([image(), other])
    assert np.count_nonzero(brain) == 3 * 4 * 8 + 1
    assert bounding_box(brain) == ((2, 3, 1), (5, 4, 8))
    assert brain[window((2, 3, 1), (5, 4, 8))].sum() == brain.sum()


def test_normalised_images_have_mean_0_and_deviation_1_inside_and_0_outside():
    voxels = image() * 1000
    brain = voxels != 0
    normalise(voxels, brain, "a")
    assert voxels[brain].mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert voxels[brain].std(dtype=float) == pytest.approx(1, abs=1e-6)
    assert not voxels[~brain].any()


def test_the_brightest_voxel_there_can_be_fits_float16():
    # One voxel apart from n - 1 equal ones lies sqrt(n - 1) deviations from the mean.
    voxels = np.ones((50, 50, 40), dtype=np.float32)
    voxels[0, 0, 0] = 1e30  # whose square float32 could not hold
    normalise(voxels, np.ones(voxels.shape, dtype=bool), "a")
    assert voxels.max() == pytest.approx(np.sqrt(99_999), rel=1e-4)
    assert np.isfinite(voxels.astype(np.float16)).all()


def test_an_image_that_covers_a_part_of_the_brain_is_0_in_the_rest():
    voxels = image()
    brain = voxels != 0
    voxels[:, :, 5:] = 0  # the other sequences cover more slices
    normalise(voxels, brain, "a")
    covered = brain & (np.arange(10) < 5)
    assert voxels[covered].mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert voxels[covered].std(dtype=float) == pytest.approx(1, abs=1e-6)
    assert not voxels[~covered].any()


def test_a_dark_hole_inside_the_brain_is_tissue():
    voxels = image()
    brain = voxels != 0
    voxels[3, 4, 4] = 0
    normalise(voxels, brain, "a")
    assert voxels[3, 4, 4] == voxels.min() < -1
    assert voxels[brain].mean(dtype=float) == pytest.approx(0, abs=1e-6)


def test_an_image_that_covers_nothing_of_the_brain_is_refused():
    with pytest.raises(CaseError, match="DWI must cover a part of the brain"):
        normalise(np.zeros((8, 9, 10), dtype=np.float32), image() != 0, "DWI")


def test_an_image_that_is_constant_inside_the_brain_is_refused():
    voxels = (image() != 0).astype(np.float32)
    with pytest.raises(CaseError, match="DWI must vary inside the brain"):
        normalise(voxels, voxels != 0, "DWI")
