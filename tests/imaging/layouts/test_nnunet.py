"""Finding cases in nnU-Net's raw data sets."""

import json

import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.layouts.nnunet import find_nnunet_cases


def data_set(root, channel_names=("T1w", "FLAIR"), training=("a_1", "b"), test=("c",)):
    for folder, names in (("imagesTr", training), ("imagesTs", test)):
        (root / folder).mkdir(parents=True)
        for name in names:
            for channel in range(len(channel_names)):
                (root / folder / f"{name}_{channel:04d}.nii.gz").touch()
    (root / "labelsTr").mkdir()
    for name in training:
        (root / "labelsTr" / f"{name}.nii.gz").touch()
    names = {str(number): name for number, name in enumerate(channel_names)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": names}))
    return root


def test_training_cases_have_sequences_by_number_and_masks_by_name(tmp_path):
    data_set(tmp_path)
    first, second = find_nnunet_cases(tmp_path, ("FLAIR", "T1"))
    assert (first.name, first.patient, first.fold, first.faults) == ("a_1", "a_1", None, ())
    assert first.images == {
        "FLAIR": tmp_path / "imagesTr/a_1_0001.nii.gz",
        "T1": tmp_path / "imagesTr/a_1_0000.nii.gz",
    }
    assert second.mask == tmp_path / "labelsTr/b.nii.gz"


def test_new_cases_are_those_of_the_test_where_there_are_any(tmp_path):
    data_set(tmp_path / "full")
    data_set(tmp_path / "training only", test=())
    for folder, names in (
        ("full", ["c"]),
        ("full/imagesTs", ["c"]),
        ("full/imagesTr", ["a_1", "b"]),
        ("training only", ["a_1", "b"]),
    ):
        cases = find_nnunet_cases(tmp_path / folder, ("T1", "FLAIR"), masks=False)
        assert [case.name for case in cases] == names
        assert all(case.mask is None and case.faults == () for case in cases)


def test_names_of_version_1_are_known(tmp_path):
    data_set(tmp_path)
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1"}}')
    first, _ = find_nnunet_cases(tmp_path, ("FLAIR", "T1"))
    assert first.images["FLAIR"].name == "a_1_0000.nii.gz"


def test_folds_are_those_that_validate(tmp_path):
    data_set(tmp_path)
    folds = [{"train": ["b"], "val": ["a_1"]}, {"train": ["a_1"], "val": ["b"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert [case.fold for case in find_nnunet_cases(tmp_path, ("T1",))] == ["0", "1"]


@pytest.mark.parametrize(
    ("splits", "fault"),
    [
        ([{"train": [], "val": ["a_1"]}], "1 of 2 are"),
        ([{"val": ["a_1", "b"]}, {"val": ["b"]}], "in the val of one fold"),
        ([["a_1", "b"]], "must be a list of folds"),
        ({}, "0 of 2 are"),
    ],
)
def test_folds_that_do_not_fit_the_cases_are_refused(tmp_path, splits, fault):
    data_set(tmp_path)
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match=fault):
        find_nnunet_cases(tmp_path, ("T1",))


def test_missing_files_are_faults_of_the_case(tmp_path):
    data_set(tmp_path)
    (tmp_path / "imagesTr/b_0001.nii.gz").unlink()
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    good, bad = find_nnunet_cases(tmp_path, ("T1", "FLAIR"))
    assert good.faults == ()
    assert bad.faults == (
        f"sequence FLAIR (b_0001) is missing in {tmp_path / 'imagesTr'}",
        f"lesion mask (b) is missing in {tmp_path / 'labelsTr'}",
    )


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, "FLAIR not so; it names T1, T2"),
        ({"channel_names": {"0": "T1", "1": "T1w"}}, "T1, FLAIR not so"),
        ({"channel_names": ["T1", "FLAIR"]}, "must name the sequences"),
        ({"channel_names": {"first": "T1"}}, "must name the sequences"),
    ],
)
def test_channels_must_name_every_sequence_once(tmp_path, names, fault):
    data_set(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    with pytest.raises(UserError, match=fault):
        find_nnunet_cases(tmp_path, ("T1", "FLAIR"))


def test_folders_that_are_no_data_set_say_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="holds no case in nnU-Net's raw layout"):
        find_nnunet_cases(tmp_path, ("T1",))
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read"):
        find_nnunet_cases(tmp_path, ("T1",))
