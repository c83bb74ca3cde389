"""The experiment as a raw data set of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import strokeseg.prepare
from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.exporting.nnunet_dataset import folds_of, write_nnunet_dataset
from strokeseg.imaging.cases import TEST, Case
from strokeseg.imaging.layouts.detection import detect_layout, find_cases
from strokeseg.records.experiment import Experiment, open_experiment
from strokeseg.records.preparation import read_preparation

SEQUENCES = ("T1", "T2", "DWI", "FLAIR")


@pytest.fixture(scope="module")
def experiment(
    tmp_path_factory: pytest.TempPathFactory,
    phantom_cases: Path,
    launch: Callable[..., object],
    local_ray: None,
) -> Experiment:
    folder = tmp_path_factory.mktemp("nnunet")
    (folder / "my-tiny.yaml").write_text(
        f"data: {{path: {phantom_cases}}}\nsplits: {{folds: 2, test_share: 0.34}}\n"
        "preparation: {reference: T1}\n"
    )
    launch(
        strokeseg.prepare.main,
        *("--experiment", folder / "my-tiny.yaml", "--storage", folder / "runs"),
    )
    return open_experiment(str(folder / "my-tiny.yaml"), str(folder / "runs"))


def test_cases_and_folds_come_back_from_nnunets_layout(experiment: Experiment) -> None:
    folder = write_nnunet_dataset(experiment, 501, cli.progress)
    assert folder == experiment.nnunet_raw / "Dataset501_mytiny"
    assert detect_layout(folder) == "nnunet"
    prepared = read_preparation(experiment).cases
    written = {case.name: case for case in find_cases(folder, SEQUENCES)}
    tests = {case.name for case in find_cases(folder, SEQUENCES, masks=False)}
    assert tests == {name for name, case in prepared.items() if case.fold == TEST}
    assert written.keys() == prepared.keys() - tests and len(tests) == 2
    for name, case in written.items():
        assert (case.fold, case.faults) == (prepared[name].fold, ())
        for path, source in (
            (case.images["DWI"], prepared[name].images["DWI"]),
            masks(case, prepared),
        ):
            copy, original = nibabel.load(path), nibabel.load(source)
            np.testing.assert_array_equal(copy.affine, original.affine)
            np.testing.assert_allclose(copy.get_fdata(), original.get_fdata(), rtol=1e-6)
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {
        f"{name}.nii.gz" for name in written
    }
    assert not (folder / "labelsTs").exists()
    manual = (folder / "README.md").read_text()
    assert "nnUNetv2_train 501 2d 0" in manual and "--predictions masks" in manual
    assert "--storage <that of the experiment> \\\n" in manual


def masks(case: Case, prepared: dict[str, Case]) -> tuple[Path, Path]:
    """The mask as written, and as it was."""
    original = prepared[case.name].mask
    assert case.mask is not None and original is not None
    return case.mask, original


def test_every_case_of_the_folds_validates_once_and_trains_elsewhere() -> None:
    cases = [
        Case(name=name, patient=name, images={}, mask=None, fold=fold)
        for name, fold in (("a", "0"), ("b", "1"), ("c", "1"), ("d", "2"), ("e", TEST))
    ]
    assert folds_of(cases) == [
        {"train": ["b", "c", "d"], "val": ["a"]},
        {"train": ["a", "d"], "val": ["b", "c"]},
        {"train": ["a", "b", "c"], "val": ["d"]},
    ]


@pytest.mark.parametrize("number", [0, 1000])
def test_numbers_that_nnunet_cannot_have_are_refused(experiment: Experiment, number: int) -> None:
    with pytest.raises(UserError, match=f"--number must be 1 to 999, .*got {number}"):
        write_nnunet_dataset(experiment, number, cli.progress)


def test_a_case_that_changed_since_it_was_prepared_is_refused(experiment: Experiment) -> None:
    facts = json.loads(experiment.preparation_json.read_text())
    before = json.dumps(facts)
    key = next(iter(facts["files"]))
    facts["files"][key]["bytes"] += 1
    experiment.preparation_json.write_text(json.dumps(facts))
    try:
        with pytest.raises(UserError, match="has changed since it was prepared"):
            write_nnunet_dataset(experiment, 502, cli.progress)
        assert not list(experiment.nnunet_raw.glob("Dataset502*"))
    finally:
        experiment.preparation_json.write_text(before)
