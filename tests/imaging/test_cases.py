"""Names of cases, and of the files that are made of them."""

import pytest

from strokeseg.imaging.cases import bids_name, is_case_name, mask_name


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("1", True),
        ("anna b.+-_", True),
        ("", False),
        ("../a", False),
        ("a/b", False),
        (".a", False),
    ],
)
def test_case_names_can_name_files(name, fits):
    assert is_case_name(name) is fits


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("1", "sub-1"),
        ("strokecase0001", "sub-strokecase0001"),
        ("sub-01", "sub-01"),
        ("sub-01_ses-02", "sub-01_ses-02"),
    ],
)
def test_masks_are_named_after_bids(case, name):
    assert bids_name(case) == name
    assert mask_name(case) == f"{name}_space-orig_label-L_desc-strokeseg_mask.nii.gz"


def test_labels_are_letters_and_digits_and_yet_differ():
    names = [bids_name(case) for case in ("a_1", "a 1", "a1", "sub-a_1")]
    assert len(set(names)) == 4
    assert all(name.removeprefix("sub-").isalnum() for name in names)
