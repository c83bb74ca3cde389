"""Real and realistic scans prepare as their descriptions say. Skipped where they are absent."""

import csv
from pathlib import Path

import numpy as np
import pytest

from strokeseg.errors import CaseError
from strokeseg.imaging.layouts.manifest import read_manifest
from strokeseg.imaging.layouts.siss import find_siss_cases
from strokeseg.imaging.metrics import volume_ml
from strokeseg.imaging.prepared import prepare_case

SHARED = Path(__file__).parents[3] / "shared" / "data"
SISS = ("T1", "T2", "DWI", "FLAIR")


def shared(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"shared data absent: {folder}")
    return folder


def check(case, lesion_voxels):
    """Brain of a plausible size, normalised inside, all of the lesion there and back."""
    brain = (case.images != 0).any(axis=0)
    assert 900 < volume_ml(brain, case.spacing_mm) < 1800
    for channel in case.images:
        # Where only another sequence shows brain, this one is 0: up to 0.2 % in these scans.
        covered = channel[channel != 0]
        assert covered.size > 0.995 * brain.sum()
        assert covered.mean(dtype=float) == pytest.approx(0, abs=1e-4)
        assert covered.std(dtype=float) == pytest.approx(1, abs=1e-4)
    assert case.native_mask.sum() == lesion_voxels
    np.testing.assert_array_equal(case.restore(case.mask.astype(np.float32)), case.native_mask)


@pytest.mark.parametrize("name", ["1", "7", "20"])
def test_siss_like_cases(name):
    folder = shared("siss-like")
    cases = find_siss_cases(folder, SISS)
    assert [case.name for case in cases] == [str(number) for number in range(1, 21)]
    (case,) = (case for case in cases if case.name == name)
    prepared = prepare_case(case.images, sequences=SISS, mask=case.mask, faults=case.faults)
    with (folder / "subjects.csv").open(encoding="utf-8") as file:
        (lesion_ml,) = (
            float(row["lesion_ml"]) for row in csv.DictReader(file) if row["case"] == name
        )
    # A voxel of 2 mm is 0.008 ml, and the table has two decimals.
    check(prepared, lesion_voxels=prepared.native_mask.sum())
    assert volume_ml(prepared.native_mask, (2, 2, 2)) == pytest.approx(lesion_ml, abs=0.0051)


def test_brats_case_with_a_background_that_is_not_zero(tmp_path):
    folder = shared("real/brats2015") / "brats_2013_pat0002_1"
    (tmp_path / "cases.csv").write_text(
        "case,FLAIR,T1c,mask\n"
        f"pat2,{folder}/Flair_subtrMeanDivStd.nii.gz,{folder}/T1c_subtrMeanDivStd.nii.gz,"
        f"{folder}/OTMultiClass.nii.gz\n",
        encoding="utf-8",
    )
    (case,) = read_manifest(tmp_path / "cases.csv", ("FLAIR", "T1c"))
    prepared = prepare_case(
        case.images, sequences=("FLAIR", "T1c"), mask=case.mask, lesion_labels="any"
    )
    check(prepared, lesion_voxels=63061)
    # The folder's own brain mask has 1,585,473 voxels of 1 mm.
    assert np.count_nonzero((prepared.images != 0).any(axis=0)) == 1_585_473
    with pytest.raises(CaseError, match="got 1, 2, 3, 4 besides 0"):
        prepare_case(case.images, sequences=("FLAIR", "T1c"), mask=case.mask)


@pytest.mark.parametrize(("patient", "lesion_voxels"), [("patient07", 1300), ("patient19", 49769)])
def test_multiple_sclerosis_with_negative_intensities(patient, lesion_voxels):
    folder = shared("real/ms") / patient
    files = {name: next(folder.glob(f"{name}_N4*")) for name in ("T1", "T2", "FLAIR", "T1POST")}
    mask = next(folder.glob("GOLD_STANDARD*"))
    check(prepare_case(files, sequences=tuple(files), mask=mask), lesion_voxels)


def test_raw_scans_on_different_oblique_grids_need_a_reference():
    folder = shared("real/ms_raw") / "patient01"
    files = {name: folder / f"study1_{name}.nii.gz" for name in ("FLAIR", "T1W", "T2W")}
    with pytest.raises(CaseError, match=r"sequence T1W .*320 x 320 x 39.*sequence T2W"):
        prepare_case(files, sequences=tuple(files))
    case = prepare_case(files, sequences=tuple(files), reference="FLAIR")
    assert case.native_grid.shape == (320, 320, 36)
    everywhere = np.ones(case.images.shape[1:], dtype=np.float32)
    assert case.restore(everywhere).sum() == everywhere.sum()
