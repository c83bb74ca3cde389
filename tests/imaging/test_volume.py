"""Reading, writing, reorienting and resampling volumes."""

import gzip

import nibabel
import numpy as np
import pytest

from strokeseg.errors import CaseError
from strokeseg.imaging.volume import (
    Grid,
    Volume,
    from_ras,
    read_volume,
    resample,
    to_ras,
    write_mask,
)


def affine(axes="RAS", spacing=(1.0, 2.0, 3.0), origin=(-10.0, 20.0, 5.0), turn=0.0):
    """Affine of a grid whose voxel axes run to `axes`, turned about z by `turn` degrees."""
    matrix = np.zeros((4, 4))
    for column, code in enumerate(axes):
        row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1)}.get(
            code, (2, 1 if code == "S" else -1)
        )
        matrix[row, column] = sign * spacing[column]
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix[:2] = np.array([[cosine, -sine], [sine, cosine]]) @ matrix[:2]
    matrix[:, 3] = (*origin, 1)
    return matrix


def grid(shape=(4, 5, 6), **settings):
    return Grid(shape=shape, affine_ras=affine(**settings))


def write_nifti(path, voxels, affine_ras=None, kind=nibabel.Nifti1Image):
    kind(voxels, affine() if affine_ras is None else affine_ras).to_filename(path)
    return path


def position_of(volume, value):
    """Millimetres in RAS+ of the one voxel with a value."""
    (index,) = np.argwhere(volume.voxels == value)
    return volume.grid.affine_ras @ [*index, 1]


NUMBERED = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_reading_gives_float32_voxels_and_the_affine(tmp_path, name, kind, dtype):
    volume = read_volume(write_nifti(tmp_path / name, NUMBERED.astype(dtype), kind=kind))
    np.testing.assert_array_equal(volume.voxels, NUMBERED)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.grid.affine_ras, affine())
    assert volume.grid.spacing_mm == pytest.approx((1, 2, 3))


def test_intensity_scaling_is_applied(tmp_path):
    image = nibabel.Nifti1Image(NUMBERED.astype(np.int16), affine())
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").voxels, NUMBERED * 0.5 - 3)


def test_a_file_compressed_under_a_plain_name_is_read(tmp_path):
    path = write_nifti(tmp_path / "a.nii", NUMBERED)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_volume(path).voxels, NUMBERED)


def test_a_fourth_axis_of_one_is_dropped_and_a_longer_one_refused(tmp_path):
    single = write_nifti(tmp_path / "single.nii", NUMBERED[..., None])
    np.testing.assert_array_equal(read_volume(single).voxels, NUMBERED)
    series = write_nifti(tmp_path / "series.nii", np.stack([NUMBERED] * 2, axis=-1))
    with pytest.raises(CaseError, match=r"series\.nii: .*shape \(4, 5, 6, 2\)"):
        read_volume(series)
    flat = write_nifti(tmp_path / "flat.nii", NUMBERED[0])
    with pytest.raises(CaseError, match="three-dimensional"):
        read_volume(flat)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_one_line_that_names_the_file(tmp_path, name, share):
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    path = write_nifti(tmp_path / name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CaseError, match=rf"{name}: is ") as raised:
        read_volume(path)
    assert "\n" not in str(raised.value)


def test_a_flipped_bit_in_a_compressed_file_is_found(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", NUMBERED)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum: the voxels themselves would decompress
    path.write_bytes(content)
    with pytest.raises(CaseError, match=r"a\.nii\.gz: is truncated or damaged"):
        read_volume(path)


def test_missing_foreign_and_folder_paths_are_named(tmp_path):
    with pytest.raises(CaseError, match=r"none\.nii: no such file"):
        read_volume(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("not an image " * 100, encoding="utf-8")
    with pytest.raises(CaseError, match=r"text\.nii: is not a single-file NIfTI"):
        read_volume(tmp_path / "text.nii")
    with pytest.raises(CaseError, match="cannot be read"):
        read_volume(tmp_path)


def test_a_header_that_promises_more_than_the_file_holds_allocates_nothing(tmp_path):
    path = write_nifti(tmp_path / "a.nii", NUMBERED)
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([600] * 3, dtype="<i2").tobytes()  # 0.86 GB of float32
    path.write_bytes(content)
    with pytest.raises(CaseError, match="promises 864000352 bytes"):
        read_volume(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_finite_float32_are_counted(tmp_path, value):
    voxels = NUMBERED.astype(np.float64)
    voxels[0, 0, :2] = value
    with pytest.raises(CaseError, match="2 of 120 are not"):
        read_volume(write_nifti(tmp_path / "a.nii", voxels))


def test_colours_and_complex_numbers_are_refused(tmp_path):
    with pytest.raises(CaseError, match="real numbers, got complex64"):
        read_volume(write_nifti(tmp_path / "a.nii", NUMBERED.astype(np.complex64)))


@pytest.mark.parametrize("column", [[0, 0, 0], [1, 0, 0]])
def test_singular_affines_are_refused(tmp_path, column):
    image = nibabel.Nifti1Image(NUMBERED, np.eye(4))
    singular = np.eye(4)
    singular[:3, 2] = column
    image.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = singular[row]
    content = bytearray(image.to_bytes())
    content[280:328] = singular[:3].astype("<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(CaseError, match=r"a\.nii: its affine must map"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_a_written_mask_has_both_transforms_and_leaves_nothing_behind(tmp_path, name):
    mask, mask_grid = (NUMBERED % 3 == 0), grid(axes="LPS", turn=10)
    write_mask(tmp_path / name, mask, mask_grid)
    image = nibabel.load(tmp_path / name)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    for transform, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(transform, mask_grid.affine_ras, atol=1e-4)
    assert read_volume(tmp_path / name).grid.matches(mask_grid)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_mask_of_another_shape_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        write_mask(tmp_path / "m.nii", np.zeros((4, 5, 7)), grid())
    assert list(tmp_path.iterdir()) == []


ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA"]


@pytest.mark.parametrize("axes", ORIENTATIONS)
@pytest.mark.parametrize("turn", [0, 20])
def test_to_ras_moves_no_voxel_in_space_and_from_ras_undoes_it(axes, turn):
    native = Volume(voxels=NUMBERED, grid=grid(axes=axes, turn=turn))
    ras = to_ras(native)
    assert nibabel.aff2axcodes(ras.grid.affine_ras) == ("R", "A", "S")
    assert ras.voxels.shape == ras.grid.shape == native.grid.in_ras_order().shape
    for value in (0, 7, 63, 119):
        np.testing.assert_allclose(position_of(ras, value), position_of(native, value))
    np.testing.assert_array_equal(from_ras(ras.voxels, native.grid), NUMBERED)


def test_spacing_follows_the_axes_to_ras():
    # Axes P, I, R of 1, 2 and 3 mm: x (R) is 3 mm, y (P) 1 mm, z (I) 2 mm.
    ras = grid(axes="PIR").in_ras_order()
    assert ras.spacing_mm == pytest.approx((3, 1, 2))
    assert ras.shape == (6, 4, 5)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"origin": (-10.05, 20.0, 5.0)}, True),  # 0.05 of the 0.1 mm allowed
        ({"origin": (-10.2, 20.0, 5.0)}, False),
        ({"spacing": (1.0001, 2.0, 3.0)}, True),
        ({"spacing": (1.0, 2.0, 3.1)}, False),  # 0.5 mm away at the far corner
        ({"axes": "LPS"}, False),
        ({"turn": 5}, False),
        ({"shape": (4, 5, 7)}, False),
    ],
)
def test_grids_match_within_a_tenth_of_a_voxel(change, same):
    assert grid().matches(grid(**change)) is same


def test_a_grid_describes_itself_in_one_line():
    assert str(grid(axes="LPS")) == (
        "4 x 5 x 6 voxels of 1 x 2 x 3 mm, axes LPS, origin (-10, 20, 5) mm"
    )


def test_another_spacing_starts_at_the_same_outer_corner_and_covers_the_grid():
    # 4 voxels of 1 mm are 4 mm: 2 of 2 mm. 5 of 2 mm are 10 mm: 4 of 3 mm (12 mm).
    # 6 of 3 mm are 18 mm: 18 of 1 mm.
    finer = grid().with_spacing((2.0, 3.0, 1.0))
    assert finer.shape == (2, 4, 18)
    assert finer.spacing_mm == pytest.approx((2, 3, 1))
    corner = [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(finer.affine_ras @ corner, grid().affine_ras @ corner)


def test_linear_resampling_reproduces_a_linear_ramp_inside():
    source = grid(shape=(12, 12, 12), spacing=(2.0, 2.0, 2.0), origin=(0, 0, 0))
    x, y, z = np.indices(source.shape).astype(np.float32) * 2
    target = Grid(shape=(5, 5, 5), affine_ras=affine("LPS", (1.5, 1.0, 2.5), (15.0, 12.0, 4.0)))
    resampled = resample(Volume(voxels=x + 2 * y - z, grid=source), target, order=1)
    i, j, k = np.indices(target.shape)
    expected = (15 - 1.5 * i) + 2 * (12 - j) - (4 + 2.5 * k)
    np.testing.assert_allclose(resampled.voxels, expected, atol=1e-4)
    assert resampled.voxels.dtype == np.float32


def test_nearest_resampling_of_a_mask_keeps_it_one():
    # Every voxel of 2 mm becomes two by two by two of 1 mm.
    coarse = grid(shape=(3, 3, 3), spacing=(2.0, 2.0, 2.0))
    mask = np.random.default_rng(0).random((3, 3, 3)) > 0.5
    fine = resample(Volume(voxels=mask, grid=coarse), coarse.with_spacing((1, 1, 1)), order=0)
    expected = mask.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(fine.voxels, expected)
    assert fine.voxels.dtype == bool


def test_outside_the_source_is_zero():
    far = grid(origin=(500.0, 0.0, 0.0))
    assert not resample(Volume(voxels=NUMBERED + 1, grid=grid()), far, order=1).voxels.any()
