"""One case with an ensemble of real predictors that need no network: intensities decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from strokeseg.ensemble.prediction import Tool, find_done, find_segmented, predict_case
from strokeseg.ensemble.slicewise import Predictor
from strokeseg.ensemble.vote import Ensemble
from strokeseg.errors import CaseError, UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.derivatives import files_of
from strokeseg.records.ensemble import EnsembleRecord

SHAPE = (24, 28, 20)
BRAIN = (slice(3, 21), slice(3, 25), slice(3, 17))
LESION = (slice(6, 10), slice(8, 13), slice(5, 8))  # 4 x 5 x 3 voxels.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def see_bright(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lesion is what is far brighter than the brain's mean, in the second channel."""
    return (slices[:, 1] > 2).astype(np.float32)


def see_nothing(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros(slices[:, 1].shape, dtype=np.float32)


def tool(*, spacing_mm=None, reference=None, sha256="a" * 64, predict=see_bright) -> Tool:
    axes = ("axial", "coronal", "sagittal")
    record = EnsembleRecord(
        name="bright",
        sequences=("T1", "FLAIR"),
        spacing_mm=spacing_mm,
        members={axis: (f"{axis}-0000.safetensors",) for axis in axes},
        preparation_hash="abc",
        code_version="1",
    )
    predictors = tuple(
        Predictor(
            name=f"{axis}-0000",
            axis=axis,
            slice_size=None,
            predict=see_nothing if axis == "axial" else predict,
        )
        for axis in axes
    )
    return Tool(
        ensemble=Ensemble(predictors=predictors, record=record),
        bundle=Path("bundle.zip"),
        bundle_sha256=sha256,
        runtime="numpy",
        code_version="1",
        reference=reference,
    )


def voxels(lesion: bool = True) -> dict[str, NDArray[np.float32]]:
    """T1 and FLAIR of a brain with a bright lesion in the FLAIR, in RAS+ order."""
    noise = np.random.default_rng(0).uniform(90, 110, size=(2, *SHAPE)).astype(np.float32)
    scan = np.zeros((2, *SHAPE), dtype=np.float32)
    scan[(slice(None), *BRAIN)] = noise[(slice(None), *BRAIN)]
    if lesion:
        scan[(1, *LESION)] = 200
    return {"T1": scan[0], "FLAIR": scan[1]}


def save(
    folder: Path,
    scans: Mapping[str, NDArray[np.float32]],
    affine: NDArray[np.float64],
    name: str = "anna",
) -> Case:
    """Write scans and name them a case."""
    folder.mkdir(exist_ok=True)
    images = {}
    for sequence, values in scans.items():
        images[sequence] = folder / f"{sequence}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, affine), images[sequence])
    return Case(name=name, patient=name, images=images, mask=None)


def expected() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[LESION] = True
    return mask


def test_a_case_gets_all_its_files(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    case = save(tmp_path / "scans", voxels(), affine)
    prediction = predict_case(tool(), case, tmp_path / "out")
    # 60 voxels of 2 mm3.
    assert (prediction.lesion_ml, prediction.lesions) == (pytest.approx(0.12), 1)
    assert str(prediction) == "0.12 ml in 1 lesion"
    files = prediction.files
    written = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written == sorted(files.all())
    mask, probability, uncertainty = (
        nibabel.load(path) for path in (files.mask, files.probability, files.uncertainty)
    )
    for image in (mask, probability, uncertainty):
        np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(mask.get_fdata() > 0, expected())
    # Two axes of three say 1: a mean of 2/3, and as divided as three axes can be.
    np.testing.assert_allclose(probability.get_fdata(), expected() * 2 / 3, atol=1e-6)
    np.testing.assert_allclose(uncertainty.get_fdata(), expected(), atol=1e-5)
    assert Image.open(files.picture).format == "PNG"
    sidecar = json.loads(files.sidecar.read_text())
    assert sidecar["Type"] == "Lesion" and sidecar["LesionCount"] == 1
    assert sidecar["LesionVolumeMl"] == sidecar["LargestLesionMl"] == pytest.approx(0.12)
    assert sidecar["Sources"] == [path.name for path in case.images.values()]
    assert sidecar["Rule"]["between"] == "hard" and "numpy" in sidecar["Versions"]


def test_an_empty_prediction_is_said(tmp_path: Path) -> None:
    case = save(tmp_path / "scans", voxels(lesion=False), np.eye(4))
    prediction = predict_case(tool(), case, tmp_path / "out")
    assert str(prediction) == "no lesion found" and prediction.lesion_ml == 0
    assert not nibabel.load(prediction.files.mask).get_fdata().any()
    sidecar = json.loads(prediction.files.sidecar.read_text())
    assert (sidecar["LesionCount"], sidecar["LargestLesionMl"]) == (0, 0)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SLA", "RAS"])
def test_orientations_turn_the_mask_and_nothing_else(tmp_path: Path, codes: str) -> None:
    wanted = nibabel.orientations.axcodes2ornt(codes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(np.eye(4)), wanted)
    scans, affine = {}, np.eye(4)
    for sequence, values in voxels().items():
        image = nibabel.Nifti1Image(values, np.eye(4)).as_reoriented(turn)
        scans[sequence], affine = np.asarray(image.dataobj), image.affine
    prediction = predict_case(tool(), save(tmp_path / "scans", scans, affine), tmp_path / "out")
    mask = nibabel.load(prediction.files.mask)
    assert "".join(nibabel.aff2axcodes(mask.affine)) == codes
    turned = nibabel.as_closest_canonical(mask)
    np.testing.assert_array_equal(turned.get_fdata() > 0, expected())


def test_an_oblique_affine_is_kept(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = (-40, 12, 7.5)
    prediction = predict_case(tool(), save(tmp_path / "scans", voxels(), affine), tmp_path / "out")
    mask = nibabel.load(prediction.files.mask)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(mask.get_fdata() > 0, expected())
    # Both transforms of the header say so, whichever a viewer believes.
    np.testing.assert_allclose(mask.get_qform(), mask.get_sform(), atol=1e-5)


def test_another_spacing_is_resampled_and_brought_back(tmp_path: Path) -> None:
    block = (slice(6, 14), slice(8, 16), slice(6, 12))
    scans = voxels(lesion=False)
    scans["FLAIR"][block] = 200
    case = save(tmp_path / "scans", scans, np.eye(4))
    prediction = predict_case(tool(spacing_mm=(2, 2, 2)), case, tmp_path / "out")
    # On the grid of 2 mm the block is whole voxels. Brought back, each voxel lies a quarter of
    # those from its centre: 3/4 at a face, 9/16 at an edge, and 27/64 at the eight corners.
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[block] = True
    wanted[np.ix_((6, 13), (8, 15), (6, 11))] = False
    np.testing.assert_array_equal(nibabel.load(prediction.files.mask).get_fdata() > 0, wanted)


def test_sequences_on_other_grids_need_a_reference(tmp_path: Path) -> None:
    scans = voxels()
    case = save(tmp_path / "scans", scans, np.eye(4))
    coarse = nibabel.Nifti1Image(scans["T1"][:, :, ::2], np.diag([1.0, 1.0, 2.0, 1.0]))
    nibabel.save(coarse, case.images["T1"])
    with pytest.raises(CaseError, match="must be on the grid of T1, .*predict: --reference"):
        predict_case(tool(), case, tmp_path / "out")
    prediction = predict_case(tool(reference="FLAIR"), case, tmp_path / "out")
    np.testing.assert_array_equal(nibabel.load(prediction.files.mask).get_fdata() > 0, expected())


def test_cut_fields_of_view_are_handled(tmp_path: Path) -> None:
    """The scan ends in the middle of the brain, and one sequence even earlier."""
    scans = {sequence: values[:, :, 5:].copy() for sequence, values in voxels().items()}
    scans["T1"][:, :, 8:] = 0
    prediction = predict_case(tool(), save(tmp_path / "scans", scans, np.eye(4)), tmp_path / "out")
    mask = nibabel.load(prediction.files.mask).get_fdata() > 0
    np.testing.assert_array_equal(mask, expected()[:, :, 5:])


def four_volumes(case: Case) -> None:
    scan = nibabel.load(case.images["FLAIR"])
    four = np.repeat(scan.get_fdata(dtype=np.float32)[..., None], 4, axis=-1)
    nibabel.save(nibabel.Nifti1Image(four, np.eye(4)), case.images["FLAIR"])


def no_background(case: Case) -> None:
    noise = np.random.default_rng(1).uniform(90, 110, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), case.images["FLAIR"])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda case: case.images["FLAIR"].unlink(), r"FLAIR\.nii\.gz: no such file"),
        (lambda case: case.images.pop("FLAIR"), "sequence FLAIR is missing"),
        (lambda case: case.images["FLAIR"].write_bytes(b""), "is empty"),
        (four_volumes, r"one three-dimensional volume, got shape \(24, 28, 20, 4\); give one"),
        (no_background, "remove the skull and the noise"),
    ],
)
def test_what_cannot_be_segmented_is_refused_in_one_line(tmp_path: Path, damage, fault) -> None:
    case = save(tmp_path / "scans", voxels(), np.eye(4))
    damage(case)
    with pytest.raises(CaseError, match=fault) as raised:
        predict_case(tool(), case, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path) -> None:
    scans = {sequence: values[..., None] for sequence, values in voxels().items()}
    prediction = predict_case(tool(), save(tmp_path / "scans", scans, np.eye(4)), tmp_path / "out")
    assert nibabel.load(prediction.files.mask).shape == SHAPE


def test_a_case_is_done_as_long_as_nothing_has_changed(tmp_path: Path) -> None:
    case = save(tmp_path / "scans", voxels(), np.eye(4))
    output = tmp_path / "out"
    assert find_done(tool(), case, output) is None
    prediction = predict_case(tool(), case, output)
    done = find_done(tool(), case, output)
    assert done is not None and done.done_before
    assert (done.lesion_ml, done.lesions) == (prediction.lesion_ml, prediction.lesions)
    assert find_done(tool(reference="T1"), case, output) is None
    with pytest.raises(UserError, match=r"another bundle \(bundle\.zip\); give another --output"):
        find_done(tool(sha256="b" * 64), case, output)
    prediction.files.uncertainty.unlink()
    assert find_done(tool(), case, output) is None


def test_other_scans_under_the_name_of_a_case_are_refused(tmp_path: Path) -> None:
    predict_case(tool(), save(tmp_path / "one", voxels(), np.eye(4)), tmp_path / "out")
    other = save(tmp_path / "two", voxels(lesion=False), np.eye(4))
    with pytest.raises(CaseError, match=r"made of other files \(FLAIR differ.*another --case"):
        find_done(tool(), other, tmp_path / "out")
    # Scans that are not whole are for segmenting to refuse, which says what is missing.
    other.images["FLAIR"].unlink()
    assert find_done(tool(), other, tmp_path / "out") is None


def test_all_that_is_segmented_is_found_in_natural_order(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for name in ("10", "2", "sub-3_ses-1", "gone"):
        predict_case(tool(), save(tmp_path / name, voxels(), np.eye(4), name), output)
    files_of(output, "gone").mask.unlink()
    found = find_segmented(output)
    assert list(found) == ["2", "10", "sub-3_ses-1"]
    assert {prediction.lesions for prediction in found.values()} == {1}
    assert found["2"].files == files_of(output, "2")
    files_of(output, "10").sidecar.write_text("[]")
    with pytest.raises(UserError, match="should be a valid dictionary, .*; move it away"):
        find_segmented(output)


def test_files_of_others_are_not_replaced_in_silence(tmp_path: Path) -> None:
    case = save(tmp_path / "scans", voxels(), np.eye(4))
    prediction = predict_case(tool(), case, tmp_path / "out")
    prediction.files.sidecar.write_text("[]")
    with pytest.raises(UserError, match=r"another bundle \(unknown\)"):
        find_done(tool(), case, tmp_path / "out")
