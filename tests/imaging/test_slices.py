"""Cutting, padding and their inverses."""

import numpy as np
import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.slices import AXES, cut, join, pad, pixel_mm, slice_size, unpad, upright


@pytest.mark.parametrize(
    ("axis", "shape"),
    [("axial", (4, 9, 2, 3)), ("coronal", (3, 9, 2, 4)), ("sagittal", (2, 9, 3, 4))],
)
def test_cut_puts_slices_first_and_keeps_channels(axis, shape):
    assert cut(np.zeros((9, 2, 3, 4)), axis).shape == shape


def test_an_axial_slice_is_a_plane_of_constant_z():
    volume = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(cut(volume, "axial")[1], volume[:, :, 1])
    np.testing.assert_array_equal(cut(volume, "coronal")[2], volume[:, 2, :])
    np.testing.assert_array_equal(cut(volume, "sagittal")[0], volume[0])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4), (1, 1, 1)])
def test_join_undoes_cut(axis, shape):
    volume = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(join(cut(volume, axis), axis), volume)


@pytest.mark.parametrize("size", [(5, 6), (5, 7), (6, 7), (32, 64)])
def test_unpad_undoes_pad(size):
    slices = np.random.default_rng(0).random((3, 2, 5, 6)).astype(np.float16)
    padded = pad(slices, size)
    assert padded.shape == (3, 2, *size) and padded.dtype == np.float16
    assert padded.sum(dtype=float) == slices.sum(dtype=float)
    np.testing.assert_array_equal(unpad(padded, (5, 6)), slices)


def test_padding_is_centred():
    # (5 - 2) // 2 = 1 row above, 2 below; (4 - 2) // 2 = 1 column on either side.
    padded = pad(np.ones((1, 2, 2)), (5, 4))
    np.testing.assert_array_equal(np.argwhere(padded[0])[[0, -1]], [[1, 1], [2, 2]])


def test_slices_that_do_not_fit_name_both_sizes():
    with pytest.raises(UserError, match=r"32 x 32, got 33 x 20.*preparation\.slice_size"):
        pad(np.ones((1, 33, 20)), (32, 32))
    with pytest.raises(ValueError, match="at most 32 x 32"):
        unpad(np.ones((1, 32, 32)), (33, 20))


@pytest.mark.parametrize(
    ("axis", "size"), [("axial", (96, 96)), ("coronal", (96, 32)), ("sagittal", (96, 32))]
)
def test_slice_size_rounds_up_to_multiples(axis, size):
    assert slice_size((65, 96, 32), axis) == size


def test_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match="axial.*got 'oblique'"):
        cut(np.zeros((2, 2, 2)), "oblique")


@pytest.mark.parametrize(
    ("axis", "top", "left"),
    [
        # Voxels of a 2 x 3 x 4 volume in RAS+: the highest x is right, y anterior, z superior.
        ("axial", (0, 2, 0), (1, 0, 0)),
        ("coronal", (0, 0, 3), (1, 0, 0)),
        ("sagittal", (0, 0, 3), (0, 2, 0)),
    ],
)
def test_upright_slices_have_superior_or_anterior_above_and_right_or_anterior_on_the_left(
    axis, top, left
):
    for voxel, edge in ((top, (0, slice(None))), (left, (slice(None), 0))):
        volume = np.zeros((2, 3, 4), dtype=bool)
        volume[voxel] = True
        assert upright(cut(volume, axis)[0])[edge].any()


@pytest.mark.parametrize(
    ("axis", "expected"), [("axial", (1, 2)), ("coronal", (1, 5)), ("sagittal", (2, 5))]
)
def test_pixels_have_the_size_of_the_two_axes_that_remain(axis, expected):
    assert pixel_mm((1, 2, 5), axis) == expected
