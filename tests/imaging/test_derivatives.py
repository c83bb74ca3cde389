"""Names and descriptions of what is made of a case."""

import json

import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.derivatives import describe_dataset, files_of, mask_sidecar, refuse_scans


@pytest.mark.parametrize(
    ("case", "start"),
    [
        ("7", "sub-7/anat/sub-7_space-orig_label-L"),
        ("sub-1_ses-2", "sub-1/ses-2/anat/sub-1_ses-2_space-orig_label-L"),
    ],
)
def test_files_of_a_case_lie_where_bids_wants_them(tmp_path, case, start):
    names = [path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path, case).all()]
    assert names == [
        f"{start}_desc-strokeseg_{ending}"
        for ending in (
            *("mask.nii.gz", "probseg.nii.gz", "uncertainty.nii.gz", "quality.png", "mask.json"),
        )
    ]


def test_a_sidecar_says_what_a_mask_is_made_of(tmp_path):
    sidecar = mask_sidecar([tmp_path / "t1.nii"], LesionVolumeMl=1.5)
    assert sidecar["Type"] == "Lesion" and sidecar["Sources"] == ["t1.nii"]
    assert sidecar["LesionVolumeMl"] == 1.5


def test_a_data_set_of_derivatives_says_who_made_it(tmp_path):
    for version in ("1", "2"):
        refuse_scans(tmp_path)
        describe_dataset(tmp_path, name="masks", version=version, made_by="bundle x")
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"] == [
        {"Name": "strokeseg", "Version": "2", "Description": "bundle x"}
    ]


@pytest.mark.parametrize(
    "there", ['{"Name": "raw", "DatasetType": "raw"}', '{"Name": "raw"}', "[]"]
)
def test_a_data_set_of_scans_is_not_written_into(tmp_path, there):
    (tmp_path / "dataset_description.json").write_text(there)
    with pytest.raises(UserError, match="no derivative; give --output"):
        refuse_scans(tmp_path)
