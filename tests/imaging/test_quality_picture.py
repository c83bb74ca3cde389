"""The picture by which a human judges a segmentation."""

import numpy as np
import pytest
from PIL import Image

from strokeseg.imaging.panels import PREDICTION_COLOUR
from strokeseg.imaging.quality_picture import indices_to_show, write_quality_picture


def test_slices_go_through_the_largest_lesion_where_it_is_largest():
    mask = np.zeros((20, 30, 40), dtype=np.uint8)
    mask[1:3, 1:3, 1:3] = 1  # Eight voxels, far from the larger lesion.
    mask[10:13, 20:22, 30:34] = 1  # Three x two x four voxels.
    mask[11, 20:26, 31] = 1  # Its slice 11 along X and 31 along Z has four more.
    place = indices_to_show(mask)
    assert place == {"sagittal": 11, "coronal": 20, "axial": 31}


def test_without_a_lesion_slices_go_through_the_middle():
    place = indices_to_show(np.zeros((20, 30, 41), dtype=np.uint8))
    assert place == {"sagittal": 10, "coronal": 15, "axial": 20}


def picture_of(path, shape, spacing_mm, mask):
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    write_quality_picture(
        path, images, mask, sequences=("T1", "FLAIR"), spacing_mm=spacing_mm, caption="case a"
    )
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("lesion", [True, False])
def test_the_lesion_is_outlined_once_a_plane_and_sequence(tmp_path, lesion):
    mask = np.zeros((30, 40, 20), dtype=np.uint8)
    mask[10:20, 10:20, 5:10] = lesion
    picture = picture_of(tmp_path / "a.png", mask.shape, (1, 1, 2), mask)
    outlined = (picture == PREDICTION_COLOUR).all(axis=-1)
    # 40 mm are 240 pixels: 6 a mm. Axial 60 x 60; coronal and sagittal 60 x 60 (5 x 2 mm).
    assert outlined.sum() == (2 * 3 * 4 * (60 - 1) if lesion else 0)


def test_planes_have_one_scale_in_mm(tmp_path):
    picture = picture_of(
        tmp_path / "a.png", (30, 40, 20), (1, 1, 2), np.zeros((30, 40, 20), dtype=np.uint8)
    )
    # 6 pixels a mm: axial 30 wide and 40 high, coronal 30 x 40, sagittal 40 x 40; gaps of 4.
    assert picture.shape[1] == 180 + 4 + 180 + 4 + 240
    assert picture.shape[0] == 2 * 19 + 2 * (240 + 4) - 4


def test_one_slice_thick_and_an_edge_lesion_can_be_drawn(tmp_path):
    mask = np.ones((12, 1, 9), dtype=np.uint8)
    assert picture_of(tmp_path / "a.png", mask.shape, (1, 6, 1), mask).any()
