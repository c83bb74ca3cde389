"""Preparing a case and bringing predictions back to its own grid."""

import nibabel
import numpy as np
import pytest

from strokeseg.errors import CaseError
from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.prepared import prepare_case

SEQUENCES = ("T1", "FLAIR")
DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def affine(axes="RAS", spacing=(2.0, 2.0, 2.0)):
    """Voxel axes along `axes`; the centre of a 40 mm cube lies at the origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for column, code in enumerate(axes):
        row, sign = DIRECTIONS[code]
        matrix[row, column] = sign * spacing[column]
        matrix[row, 3] = -sign * 20
    return matrix


def millimetres(affine_ras, shape):
    """Position of every voxel, (X, Y, Z, 3)."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine_ras[:3, :3].T + affine_ras[:3, 3]


def anatomy(affine_ras, shape):
    """Two images and a mask on one grid: a brain of 16 mm radius, a lesion of 8 mm to the left.

    Intensities depend on the place only, so that every grid shows the same patient.
    """
    place = millimetres(affine_ras, shape)
    brain = np.linalg.norm(place, axis=-1) < 16
    lesion = np.linalg.norm(place - [-5, 2, 1], axis=-1) < 8
    texture = np.sin(place @ [0.3, 0.2, 0.1])
    t1 = np.where(brain, 100 + 10 * texture - 20 * lesion, 0)
    flair = np.where(brain, 50 + 5 * texture + 30 * lesion, -7)
    return {"T1": t1.astype(np.float32), "FLAIR": flair.astype(np.float32)}, lesion


def write(path, voxels, affine_ras):
    nibabel.Nifti1Image(voxels, affine_ras).to_filename(path)
    return path


def write_case(folder, axes="RAS", spacing=(2.0, 2.0, 2.0)):
    shape = tuple(round(40 / step) + 1 for step in spacing)
    affine_ras = affine(axes, spacing)
    images, lesion = anatomy(affine_ras, shape)
    files = {
        name: write(folder / f"{name}.nii", image, affine_ras) for name, image in images.items()
    }
    return files, write(folder / "mask.nii", lesion.astype(np.uint8), affine_ras), lesion


def rewrite(path, voxels=None, affine_ras=None):
    image = nibabel.load(path, mmap=False)
    voxels = image.get_fdata().astype(np.float32) if voxels is None else voxels
    return write(path, voxels, image.affine if affine_ras is None else affine_ras)


def prepare(files, mask=None, **settings):
    return prepare_case(files, sequences=SEQUENCES, mask=mask, **settings)


def test_images_are_cropped_normalised_and_zero_outside(tmp_path):
    files, mask, lesion = write_case(tmp_path)
    case = prepare(files, mask)
    # The brain's radius is 16 mm, without its surface: 15 voxels of 2 mm from -14 to 14 mm.
    assert case.images.shape == (2, 15, 15, 15) and case.images.dtype == np.float32
    assert case.crop_start == (3, 3, 3)
    outside = np.linalg.norm(millimetres(case.canvas.affine_ras, case.canvas.shape), axis=-1) >= 16
    outside = outside[3:18, 3:18, 3:18]
    for channel in case.images:
        assert not channel[outside].any()
        assert channel[~outside].mean() == pytest.approx(0, abs=1e-5)
        assert channel[~outside].std() == pytest.approx(1, abs=1e-5)
    assert case.mask.dtype == case.native_mask.dtype == np.uint8
    np.testing.assert_array_equal(case.native_mask, lesion)
    assert case.mask.sum() == lesion.sum()


def test_channels_follow_the_order_of_the_sequences(tmp_path):
    files, _, _ = write_case(tmp_path)
    forth = prepare_case(files, sequences=("T1", "FLAIR"))
    back = prepare_case(files, sequences=("FLAIR", "T1"))
    np.testing.assert_array_equal(forth.images, back.images[::-1])
    assert forth.mask is None and forth.native_mask is None


GRIDS = [
    ("RAS", (2.0, 2.0, 2.0)),
    ("LPS", (1.0, 2.0, 4.0)),
    ("LAS", (2.0, 1.0, 4.0)),
    ("PIR", (4.0, 2.0, 1.0)),
    ("SRA", (1.0, 4.0, 2.0)),
]


@pytest.mark.parametrize(("axes", "spacing"), GRIDS)
def test_restore_is_the_exact_inverse_on_any_grid(tmp_path, axes, spacing):
    files, mask, lesion = write_case(tmp_path, axes, spacing)
    case = prepare(files, mask)
    restored = case.restore(case.mask.astype(np.float32))
    assert restored.dtype == np.float32 and restored.shape == lesion.shape
    np.testing.assert_array_equal(restored, lesion)
    np.testing.assert_array_equal(case.project(case.native_mask), case.mask)
    np.testing.assert_array_equal(case.native_mask, lesion)
    probability = np.random.default_rng(0).random(case.mask.shape, dtype=np.float32)
    assert (
        np.sort(probability.ravel()).tolist()
        == np.sort(case.restore(probability)[case.restore(np.ones_like(probability)) == 1]).tolist()
    )


@pytest.mark.parametrize(("axes", "spacing"), GRIDS)
def test_the_patients_left_is_low_x_whatever_the_files_order(tmp_path, axes, spacing):
    files, mask, _ = write_case(tmp_path, axes, spacing)
    case = prepare(files, mask)
    centre_mm = np.argwhere(case.mask).mean(axis=0) * case.spacing_mm
    middle_mm = (np.array(case.mask.shape) - 1) / 2 * case.spacing_mm
    # The lesion's centre lies at (-5, 2, 1) mm from the brain's.
    np.testing.assert_allclose(centre_mm - middle_mm, [-5, 2, 1], atol=1.0)


@pytest.mark.parametrize(("axes", "spacing"), GRIDS)
def test_resampling_goes_to_the_spacing_and_back(tmp_path, axes, spacing):
    files, mask, lesion = write_case(tmp_path, axes, spacing)
    case = prepare(files, mask, spacing_mm=(1.5, 1.5, 1.5))
    assert case.spacing_mm == pytest.approx((1.5, 1.5, 1.5))
    np.testing.assert_array_equal(case.native_mask, lesion)
    lesion_ml = lesion.sum() * np.prod(spacing) / 1000
    assert case.mask.sum() * 1.5**3 / 1000 == pytest.approx(lesion_ml, rel=0.05)
    restored = case.restore(case.mask.astype(np.float32))
    assert restored.shape == lesion.shape and 0 <= restored.min() <= restored.max() <= 1
    assert score_masks(lesion, restored >= 0.5, (1, 1, 1)).dice > 0.9
    brain = (case.images != 0).any(axis=0)
    assert brain.sum() * 1.5**3 == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.1)


def test_a_spacing_within_a_hundredth_is_left_alone(tmp_path):
    files, _, _ = write_case(tmp_path)
    case = prepare(files, spacing_mm=(2.01, 1.99, 2.0))
    assert case.spacing_mm == pytest.approx((2, 2, 2))


def test_sequences_in_another_voxel_order_on_the_same_lattice_fit(tmp_path):
    files, mask, _ = write_case(tmp_path)
    expected = prepare(files, mask)
    flair = nibabel.load(files["FLAIR"], mmap=False)
    turned = flair.as_reoriented(nibabel.orientations.axcodes2ornt("LPS"))
    turned.to_filename(files["FLAIR"])
    case = prepare(files, mask)
    np.testing.assert_array_equal(case.images, expected.images)


def test_grids_that_differ_are_named_with_the_remedy(tmp_path):
    files, mask, _ = write_case(tmp_path)
    moved = affine()
    moved[0, 3] += 1
    rewrite(files["FLAIR"], affine_ras=moved)
    rewrite(mask, affine_ras=moved)
    with pytest.raises(CaseError) as raised:
        prepare(files, mask)
    message = str(raised.value)
    assert "sequence FLAIR must be on the grid of T1" in message
    assert "origin (-20, -20, -20)" in message and "origin (-19, -20, -20)" in message
    assert "set preparation.reference" in message
    assert "mask.nii: the lesion mask must be on the grid of T1" in message


def test_with_a_reference_the_others_come_onto_its_grid(tmp_path):
    files, mask, lesion = write_case(tmp_path)
    shape, other = (30, 28, 11), affine("LPS", (1.5, 1.5, 4.0))
    images, _ = anatomy(other, shape)
    write(files["FLAIR"], images["FLAIR"], other)
    case = prepare(files, mask, reference="T1")
    assert case.native_grid.shape == lesion.shape
    np.testing.assert_array_equal(case.restore(case.mask.astype(np.float32)), lesion)
    # FLAIR is bright in the lesion, T1 dark: so it is where it should be.
    assert case.images[1][case.mask == 1].mean() > 1
    assert case.images[0][case.mask == 1].mean() < -1
    with pytest.raises(CaseError, match="the lesion mask must be on the grid of FLAIR"):
        prepare(files, mask, reference="FLAIR")


def test_a_reference_that_is_no_sequence_is_refused(tmp_path):
    files, _, _ = write_case(tmp_path)
    with pytest.raises(ValueError, match="reference"):
        prepare(files, reference="DWI")


def test_all_faults_of_a_case_are_reported_at_once_on_one_line(tmp_path):
    files, mask, lesion = write_case(tmp_path)
    files["FLAIR"].write_bytes(files["FLAIR"].read_bytes()[:1000])
    rewrite(mask, lesion * 3.0)
    with pytest.raises(CaseError) as raised:
        prepare_case({**files}, sequences=("T1", "FLAIR", "DWI"), mask=mask)
    message = str(raised.value)
    for fault in ("sequence DWI is missing", "FLAIR.nii: is truncated", "0 and 1 only, got 3"):
        assert fault in message
    assert "\n" not in message


def test_faults_of_the_folder_speak_for_missing_sequences(tmp_path):
    files, _, _ = write_case(tmp_path)
    found = "sequence FLAIR must be one file in x, got 2"
    with pytest.raises(CaseError) as raised:
        prepare({"T1": files["T1"]}, faults=(found,))
    assert str(raised.value) == found


def test_a_case_without_any_file_is_a_fault(tmp_path):
    with pytest.raises(CaseError, match="sequence T1 is missing, got none; sequence FLAIR"):
        prepare({})


@pytest.mark.parametrize(
    ("labels", "lesion_labels", "voxels"),
    [
        ((1, 1), "binary", 200),
        ((0, 0), "binary", 0),
        ((1, 4), "any", 200),
        ((1, 4), (4,), 100),
        ((1, 4), (2, 3), 0),
        ((1.0000001, 0.9999999), "binary", 200),
    ],
)
def test_lesion_labels_choose_what_is_lesion(tmp_path, labels, lesion_labels, voxels):
    files, mask, lesion = write_case(tmp_path)
    labelled = np.zeros(lesion.shape)
    labelled[np.nonzero(lesion)] = np.where(np.arange(lesion.sum()) < 100, *labels)
    labelled[tuple(np.argwhere(lesion)[200:].T)] = 0
    rewrite(mask, labelled)
    case = prepare(files, mask, lesion_labels=lesion_labels)
    assert case.native_mask.sum() == case.mask.sum() == voxels


@pytest.mark.parametrize(
    ("values", "lesion_labels", "fault"),
    [
        ((1, 2), "binary", "0 and 1 only, got 1, 2 besides 0; set data.lesion_labels"),
        ((255, 255), "binary", "got 255 besides 0"),
        ((0.5, 1), "any", "whole numbers from 0, got 0.5, 1"),
        ((-1, 1), (1,), "whole numbers from 0, got -1, 1"),
    ],
)
def test_other_labels_are_named(tmp_path, values, lesion_labels, fault):
    files, mask, lesion = write_case(tmp_path)
    labelled = np.zeros(lesion.shape)
    labelled[np.nonzero(lesion)] = np.resize(values, lesion.sum())
    rewrite(mask, labelled)
    with pytest.raises(CaseError, match=fault):
        prepare(files, mask, lesion_labels=lesion_labels)


def test_an_image_in_place_of_a_mask_shows_a_few_of_its_values(tmp_path):
    files, _, _ = write_case(tmp_path)
    with pytest.raises(CaseError, match=r"whole numbers from 0, got .* and \d+ more"):
        prepare(files, files["T1"])


def test_an_empty_mask_is_a_case_without_lesion_but_an_empty_file_is_a_fault(tmp_path):
    files, mask, lesion = write_case(tmp_path)
    rewrite(mask, np.zeros(lesion.shape, dtype=np.uint8))
    case = prepare(files, mask)
    assert case.mask.sum() == case.native_mask.sum() == 0
    mask.write_bytes(b"")
    with pytest.raises(CaseError, match=r"mask\.nii: is empty \(0 bytes\)"):
        prepare(files, mask)


def test_a_lesion_outside_the_brain_is_a_fault_only_for_the_most_part(tmp_path):
    files, mask, lesion = write_case(tmp_path)
    misplaced = np.zeros(lesion.shape, dtype=np.uint8)
    # The middle line from the border on: 3 voxels before the brain, then 15 inside.
    misplaced[10, 10, :6] = 1
    rewrite(mask, misplaced)
    case = prepare(files, mask)
    assert (case.native_mask.sum(), case.mask.sum()) == (6, 3)
    misplaced[10, 10, 5] = 0
    rewrite(mask, misplaced)
    with pytest.raises(CaseError, match="3 of its 5 voxels lie outside"):
        prepare(files, mask)


def test_images_without_content_are_faults(tmp_path):
    files, _, lesion = write_case(tmp_path)
    rewrite(files["FLAIR"], np.zeros(lesion.shape, dtype=np.float32))
    with pytest.raises(CaseError, match=r"FLAIR\.nii: sequence FLAIR must show something"):
        prepare(files)
    t1 = nibabel.load(files["T1"], mmap=False).get_fdata()
    rewrite(files["FLAIR"], (t1 != 0).astype(np.float32))
    with pytest.raises(CaseError, match=r"FLAIR\.nii: sequence FLAIR must vary inside the brain"):
        prepare(files)


def test_restore_refuses_a_map_of_another_shape(tmp_path):
    files, _, _ = write_case(tmp_path)
    case = prepare(files)
    with pytest.raises(ValueError, match="shape"):
        case.restore(np.zeros((3, 3, 3), dtype=np.float32))
