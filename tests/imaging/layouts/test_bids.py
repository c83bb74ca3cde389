"""Finding cases in BIDS data sets and in those of ISLES'22."""

from pathlib import Path

import numpy as np
import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.layouts.bids import find_bids_cases
from strokeseg.imaging.layouts.isles22 import find_isles22_cases
from strokeseg.imaging.layouts.sequence_names import is_suffix
from strokeseg.imaging.prepared import prepare_case

REAL_ISLES22 = Path(__file__).parents[4] / "shared" / "data" / "real" / "isles22"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("suffix", "enhanced", "sequence", "fits"),
    [
        ("T1w", False, "T1", True),
        ("T1w", True, "T1", False),
        ("T1w", True, "T1c", True),
        ("T1w", False, "T1c", False),
        ("T1w", False, "T1w", True),
        ("T2w", False, "T2", True),
        ("T2starw", False, "T2", False),
        ("flair", False, "FLAIR", True),
        ("adc", False, "ADC", True),
        ("dwi", False, "ADC", False),
    ],
)
def test_suffixes_that_hold_a_sequence(suffix, enhanced, sequence, fits):
    assert is_suffix(suffix, enhanced, sequence) is fits


def test_every_session_is_a_case_and_the_subject_the_patient(tmp_path):
    touch(
        tmp_path,
        "dataset_description.json",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-10/ses-b/anat/sub-10_ses-b_T1w.nii",
        "sub-10/ses-a/anat/sub-10_ses-a_T1w.nii.gz",
        "sub-10/ses-a/anat/sub-10_ses-a_ce-gd_T1w.nii.gz",
        "sub-10/ses-a/dwi/sub-10_ses-a_dwi.json",
    )
    cases = find_bids_cases(tmp_path, ("T1",), masks=False)
    assert [(case.name, case.patient) for case in cases] == [
        ("sub-02", "sub-02"),
        ("sub-10_ses-a", "sub-10"),
        ("sub-10_ses-b", "sub-10"),
    ]
    assert all(case.faults == () for case in cases)
    assert cases[1].images["T1"].name == "sub-10_ses-a_T1w.nii.gz"


@pytest.mark.parametrize(
    "mask",
    [
        "sub-1/anat/sub-1_space-orig_label-L_mask.nii.gz",
        "sub-1/anat/sub-1_space-orig_label-L_desc-T1lesion_mask.nii.gz",
        "derivatives/lesion_masks/sub-1/dwi/sub-1_space-TRACE_desc-lesion_mask.nii.gz",
        "derivatives/manual/sub-1/anat/sub-1_label-lesion_roi.nii.gz",
        "derivatives/manual/sub-1/ses-1/sub-1_ses-1_desc-lesion_dseg.nii.gz",
    ],
)
def test_masks_say_that_they_show_the_lesion(tmp_path, mask):
    touch(
        tmp_path,
        "sub-1/anat/sub-1_FLAIR.nii.gz",
        "derivatives/fs/sub-1/anat/sub-1_desc-brain_mask.nii.gz",
        "derivatives/strokeseg/sub-1/anat/sub-1_label-L_desc-strokeseg_mask.nii.gz",
        "derivatives/runs/evaluation/masks/sub-1_space-orig_label-L_desc-vote_mask.nii.gz",
        "derivatives/runs/evaluation/masks/sub-1_space-orig_label-L_desc-axial_mask.nii.gz",
        "derivatives/manual/sub-2/anat/sub-2_label-L_mask.nii.gz",
        mask,
    )
    (case,) = find_bids_cases(tmp_path, ("FLAIR",))
    assert case.mask == tmp_path / mask and case.faults == ()


def test_masks_are_found_beside_rawdata(tmp_path):
    touch(
        tmp_path,
        "rawdata/sub-1/anat/sub-1_FLAIR.nii",
        "derivatives/manual/sub-1/anat/sub-1_label-L_mask.nii",
    )
    for folder in (tmp_path, tmp_path / "rawdata"):
        (case,) = find_bids_cases(folder, ("FLAIR",))
        assert case.mask is not None and case.faults == ()


def test_two_runs_or_none_are_faults_of_the_case(tmp_path):
    touch(
        tmp_path,
        "sub-1/anat/sub-1_run-1_FLAIR.nii.gz",
        "sub-1/anat/sub-1_run-2_FLAIR.nii.gz",
        "sub-1/anat/._sub-1_T1w.nii.gz",
        "sub-1/anat/notes_T1w.nii.gz",
    )
    (case,) = find_bids_cases(tmp_path, ("FLAIR", "T1"))
    several, missing, mask = case.faults
    assert several.startswith("sequence FLAIR must be one file") and "run-2" in several
    assert missing.startswith("sequence T1 is missing in")
    assert mask.startswith("lesion mask is missing in")


def test_one_subject_may_be_given_alone(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii")
    (case,) = find_bids_cases(tmp_path / "sub-1", ("T1",), masks=False)
    assert case.name == "sub-1"


def test_folders_without_subjects_say_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="holds no folder of a subject; expected .*_T1w"):
        find_bids_cases(tmp_path, ("T1",))
    with pytest.raises(UserError, match="no such folder"):
        find_bids_cases(tmp_path / "nowhere", ("T1",))


@pytest.mark.parametrize("folder", ["", "dwi/"])
def test_isles22_has_masks_of_its_own_and_files_right_in_the_session(tmp_path, folder):
    name = "sub-strokecase0001_ses-0001"
    session = "sub-strokecase0001/ses-0001"
    touch(
        tmp_path,
        f"rawdata/{session}/{folder}{name}_dwi.nii.gz",
        f"rawdata/{session}/{folder}{name}_adc.nii.gz",
        f"derivatives/{session}/{name}_msk.nii.gz",
    )
    (case,) = find_isles22_cases(tmp_path, ("DWI", "ADC"))
    assert (case.name, case.patient) == (name, "sub-strokecase0001")
    assert case.mask == tmp_path / f"derivatives/{session}/{name}_msk.nii.gz"
    assert case.faults == () and set(case.images) == {"DWI", "ADC"}


def test_a_real_case_of_isles22_is_found_and_prepared():
    if not REAL_ISLES22.is_dir():
        pytest.skip(f"shared data absent: {REAL_ISLES22}")
    (case,) = find_isles22_cases(REAL_ISLES22, ("DWI", "ADC"), masks=False)
    assert case.name == "sub-strokecase0001_ses-0001"
    prepared = prepare_case(case.images, sequences=("DWI", "ADC"), faults=case.faults)
    assert prepared.native_grid.shape == (112, 112, 73)
    assert np.allclose(prepared.spacing_mm, 2, atol=0.01)
