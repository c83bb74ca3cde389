"""The experiments that ship, on data of their own layout and size."""

import json

import nibabel
import numpy as np
import pytest

from strokeseg import predict, prepare, search
from strokeseg.phantoms.dataset import write_phantoms


@pytest.fixture(scope="session")
def siss_size_cases(tmp_path_factory):
    """Cases as ISLES 2015 ships them: folders 1 to 6, 230 x 230 x 154, 1 mm, plain .nii."""
    folder = tmp_path_factory.mktemp("isles") / "SISS2015_Training"
    write_phantoms(folder, cases=6, spacing_mm=2, seed=3)
    # Each voxel of 2 mm becomes eight of 1 mm, sooner than those are simulated.
    for path in folder.rglob("*.nii"):
        image = nibabel.load(path, mmap=False)
        voxels = np.asarray(image.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine @ np.diag([0.5, 0.5, 0.5, 1])), path)
    return folder


@pytest.mark.slow
def test_isles2015_is_prepared_from_the_layout_and_size_that_the_download_has(
    siss_size_cases, tmp_path, local_ray
):
    volume = nibabel.load(next(siss_size_cases.glob("1/*MR_DWI*/*.nii")))
    assert volume.shape == (230, 230, 154)
    where = ["--experiment", "isles2015", "--storage", str(tmp_path)]
    assert prepare.main([*where, "--data", str(siss_size_cases)]) == 0
    prepared = tmp_path / "isles2015" / "prepared"
    facts = json.loads((prepared / "preparation.json").read_text())
    assert facts["spacing_mm"] == [1, 1, 1]
    # An adult brain of about 140 x 180 x 140 mm, in multiples of 32 voxels of 1 mm.
    for height, width in facts["slice_sizes"].values():
        assert {height, width} <= {128, 160, 192}
    # 6 patients, a fifth of them (1.2, rounded) for the test, the others in 5 folds.
    assert len(json.loads((prepared / "splits.json").read_text())["test"]) == 1
    assert len(list(prepared.glob("slices/axis=axial/fold=*/*.parquet"))) == 5


@pytest.mark.slow
def test_isles2015_asks_for_weights_that_are_not_there_before_the_first_trial(
    siss_size_cases, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = ["--experiment", "isles2015", "--storage", str(tmp_path)]
    code = search.main([*where, "--data", str(siss_size_cases), "--axis", "axial"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert last.startswith("error: ")
    assert "resnet18" in last
    assert "--weights-dir" in last
    assert not (tmp_path / "isles2015" / "search").exists()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, write_untrained_bundle):
    """Random networks mark about half of a brain, in no pattern that looks alike when turned."""
    return write_untrained_bundle(tmp_path_factory.mktemp("orientation"))


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA"])
def test_a_case_gets_its_mask_in_whatever_orientation_its_files_are(
    bundle, phantom_cases, tmp_path, orientation
):
    """The same scan, its axes turned: the mask must be the same one, turned alike."""
    masks = {}
    for name in ("LPS", orientation):
        images = ["--case", "case"]
        for sequence in ("T1", "T2", "DWI", "Flair"):
            source = next(phantom_cases.glob(f"1/*MR_{sequence}.*/*.nii"))
            turned = _turn(nibabel.load(source, mmap=False), name)
            path = tmp_path / f"{name}-{sequence}.nii.gz"
            nibabel.save(turned, path)
            images += ["--image", f"{'FLAIR' if sequence == 'Flair' else sequence}={path}"]
        output = tmp_path / name
        assert predict.main(["--bundle", str(bundle), "--output", str(output), *images]) == 0
        mask = nibabel.load(next(output.rglob("*case*mask.nii.gz")))
        assert nibabel.aff2axcodes(mask.affine) == tuple(name)
        masks[name] = _turn(mask, "RAS")
    first, second = masks["LPS"], masks[orientation]
    marked = np.asarray(first.dataobj)
    assert all(not np.array_equal(marked, np.flip(marked, axis)) for axis in range(3))
    np.testing.assert_array_equal(marked, np.asarray(second.dataobj))
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)


def _turn(image, codes):
    """The image with its axes flipped and permuted to point where `codes` says."""
    now = nibabel.io_orientation(image.affine)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted))
