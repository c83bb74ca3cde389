"""Detecting the layout of cases by the names of folders and files."""

import shutil
from typing import get_args

import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.layouts.detection import LAYOUTS, detect_layout, find_cases
from strokeseg.imaging.layouts.named_files import name_case
from strokeseg.records.config import DataConfig

FILES = {
    "siss": "1/VSD.Brain.XX.O.MR_T1.7/VSD.Brain.XX.O.MR_T1.7.nii",
    "isles22": "rawdata/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_T1w.nii.gz",
    "bids": "sub-01/anat/sub-01_T1w.nii.gz",
    "nnunet": "imagesTr/a_0000.nii.gz",
    "manifest": "cases.csv",
}


def lay_out(folder, layout):
    path = folder / FILES[layout]
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_distinguished_from_the_others(tmp_path, layout):
    path = lay_out(tmp_path / "data", layout)
    assert detect_layout(path if layout == "manifest" else tmp_path / "data") == layout


def test_a_mask_of_isles22_tells_it_from_bids(tmp_path):
    lay_out(tmp_path / "data", "bids")
    mask = tmp_path / "data/derivatives/sub-01/sub-01_msk.nii.gz"
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert detect_layout(tmp_path / "data") == "isles22"


def test_a_layout_that_could_be_two_must_be_named(tmp_path):
    for layout in ("siss", "bids"):
        lay_out(tmp_path / layout, layout)
        shutil.copytree(tmp_path / layout, tmp_path / "two", dirs_exist_ok=True)
    with pytest.raises(UserError, match="could be siss or bids; say which with --layout"):
        find_cases(tmp_path / "two", ("T1",))
    (case,) = find_cases(tmp_path / "two", ("T1",), layout="bids", masks=False)
    assert case.name == "sub-01"


def test_what_is_no_layout_names_the_known_ones(tmp_path):
    image = tmp_path / "t1.nii.gz"
    image.touch()
    for path, fault in (
        (tmp_path, "holds no case in a layout that is known: SISS"),
        (tmp_path / "nowhere", "no such folder"),
        (image, "is one image; name a case's files with --image"),
    ):
        with pytest.raises(UserError, match=fault) as raised:
            find_cases(path, ("T1",))
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="must be a folder to hold cases in the layout bids"):
        find_cases(image, ("T1",), layout="bids")


def test_the_configuration_knows_all_layouts():
    assert get_args(DataConfig.model_fields["layout"].annotation) == ("auto", *LAYOUTS)


@pytest.mark.parametrize(
    ("case", "images", "fault"),
    [
        ("a/b", ("T1=a.nii",), "--case a/b: must be letters"),
        ("a", ("T9=a.nii",), "one of the bundle's sequences, T1, T2"),
        ("a", ("a.nii",), "must be SEQUENCE=FILE"),
        ("a", ("T1=a.nii", "T1=b.nii"), "given once only"),
    ],
)
def test_named_files_must_name_known_sequences_once(case, images, fault):
    with pytest.raises(UserError, match=fault):
        name_case(case, images, ("T1", "T2"))
