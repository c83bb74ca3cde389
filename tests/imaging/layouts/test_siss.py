"""Finding cases in folders of ISLES 2015 SISS."""

import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.layouts.siss import find_siss_cases

SEQUENCES = ("T1", "T2", "DWI", "FLAIR")
FOLDERS = (
    "VSD.Brain.XX.O.MR_T1.11",
    "VSD.Brain.XX.O.MR_T1c.12",
    "VSD.Brain.XX.O.MR_T2.13",
    "VSD.Brain.XX.O.MR_DWI.14",
    "VSD.Brain.XX.O.MR_Flair.15",
    "VSD.Brain_3more.XX.O.OT.16",
)


def siss_case(folder, volumes=FOLDERS, suffix=".nii"):
    for volume in volumes:
        (folder / volume).mkdir(parents=True)
        (folder / volume / f"{volume}{suffix}").touch()
    return folder


def test_a_siss_case_has_its_sequences_and_mask(tmp_path):
    folder = siss_case(tmp_path / "1")
    (case,) = find_siss_cases(tmp_path, SEQUENCES)
    assert (case.name, case.patient, case.fold, case.faults) == ("1", "1", None, ())
    assert case.images == {
        "T1": folder / "VSD.Brain.XX.O.MR_T1.11" / "VSD.Brain.XX.O.MR_T1.11.nii",
        "T2": folder / "VSD.Brain.XX.O.MR_T2.13" / "VSD.Brain.XX.O.MR_T2.13.nii",
        "DWI": folder / "VSD.Brain.XX.O.MR_DWI.14" / "VSD.Brain.XX.O.MR_DWI.14.nii",
        "FLAIR": folder / "VSD.Brain.XX.O.MR_Flair.15" / "VSD.Brain.XX.O.MR_Flair.15.nii",
    }
    assert case.mask == folder / FOLDERS[-1] / f"{FOLDERS[-1]}.nii"


@pytest.mark.parametrize("truth", ["VSD.Brain.XX.O.OT.7", "VSD.Brain_3more.XX.XX.OT.7"])
def test_other_names_of_the_truth_and_compressed_files_are_known(tmp_path, truth):
    siss_case(tmp_path / "1", ("VSD.Brain.XX.O.MR_T1.11", truth), suffix=".NII.GZ")
    (case,) = find_siss_cases(tmp_path, ("t1",))
    assert case.faults == () and case.mask is not None and case.mask.parent.name == truth


def test_a_sequence_is_not_mistaken_for_one_that_begins_alike(tmp_path):
    siss_case(tmp_path / "1", ("VSD.Brain.XX.O.MR_T1c.12", FOLDERS[-1]))
    (case,) = find_siss_cases(tmp_path, ("T1",))
    assert case.images == {}
    assert case.faults == (f"sequence T1 is missing in {tmp_path / '1'}",)


def test_cases_come_in_natural_order_from_either_level(tmp_path):
    for name in ("10", "2", "1"):
        siss_case(tmp_path / "SISS2015_Training" / name)
    for folder in (tmp_path, tmp_path / "SISS2015_Training"):
        assert [case.name for case in find_siss_cases(folder, SEQUENCES)] == ["1", "2", "10"]


def test_a_single_case_folder_is_found_as_such(tmp_path):
    siss_case(tmp_path / "patient-x")
    assert [case.name for case in find_siss_cases(tmp_path / "patient-x", SEQUENCES)] == [
        "patient-x"
    ]


def test_stray_files_and_folders_are_ignored(tmp_path):
    folder = siss_case(tmp_path / "1")
    for stray in (".DS_Store", "subjects.csv", "1/simulation.json", "1/license.nii"):
        (tmp_path / stray).touch()
    (folder / FOLDERS[0] / f"._{FOLDERS[0]}.nii").touch()
    (tmp_path / "notes").mkdir()
    (case,) = find_siss_cases(tmp_path, SEQUENCES)
    assert case.faults == ()


def test_faults_of_a_case_leave_the_others_whole(tmp_path):
    siss_case(tmp_path / "1")
    siss_case(tmp_path / "2", (*FOLDERS[:3], *FOLDERS[4:5], "VSD.Brain.XX.O.MR_T2.99"))
    good, bad = find_siss_cases(tmp_path, SEQUENCES)
    assert good.faults == ()
    assert set(bad.images) == {"T1", "FLAIR"} and bad.mask is None
    several, dwi, mask = bad.faults
    assert several.startswith("sequence T2 must be one file in") and "MR_T2.99.nii" in several
    assert dwi == f"sequence DWI is missing in {tmp_path / '2'}"
    assert mask == f"lesion mask (OT) is missing in {tmp_path / '2'}"


def test_an_empty_sequence_folder_is_a_missing_sequence(tmp_path):
    folder = siss_case(tmp_path / "1")
    (folder / FOLDERS[0] / f"{FOLDERS[0]}.nii").unlink()
    (case,) = find_siss_cases(tmp_path, SEQUENCES)
    assert case.faults == (f"sequence T1 is missing in {folder}",)


def test_new_patients_need_no_mask(tmp_path):
    siss_case(tmp_path / "1", FOLDERS[:-1])
    siss_case(tmp_path / "2")
    for case in find_siss_cases(tmp_path, SEQUENCES, masks=False):
        assert case.mask is None and case.faults == ()


def test_folders_without_cases_say_what_was_expected(tmp_path):
    (tmp_path / "1" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no case in SISS layout; expected .*MR_T1\."):
        find_siss_cases(tmp_path, SEQUENCES)
    with pytest.raises(UserError, match="no such folder"):
        find_siss_cases(tmp_path / "nowhere", SEQUENCES)


def test_two_sets_with_the_same_case_names_are_refused(tmp_path):
    siss_case(tmp_path / "training" / "1")
    siss_case(tmp_path / "testing" / "1")
    with pytest.raises(UserError, match="two cases are named 1"):
        find_siss_cases(tmp_path, SEQUENCES)


def test_a_folder_whose_name_cannot_name_files_is_refused_at_once(tmp_path):
    folder = siss_case(tmp_path / "12 (2)")
    with pytest.raises(UserError, match=rf"{tmp_path}.*12 \(2\).*rename it"):
        find_siss_cases(tmp_path, SEQUENCES)
    with pytest.raises(UserError, match="rename it"):
        find_siss_cases(folder, SEQUENCES)
