"""What all cases decide together, on records made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strokeseg.config import ExperimentConfig
from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.preparation.decisions import (
    common_size,
    common_spacing,
    decide_splits,
    refuse_leaks,
)
from strokeseg.preparation.record import Measured, file_facts, files_of


def config(**parts: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"data": {"path": "cases"}, **parts})


def cases(folds: dict[str, str | None]) -> list[Case]:
    return [
        Case(name=name, patient=name, images={}, mask=None, fold=fold)
        for name, fold in folds.items()
    ]


def measured(count: int, **facts: Any) -> list[Measured]:
    return [Measured(lesion_voxels=1, lesion_ml=float(n + 1), **facts) for n in range(count)]


def test_the_slice_size_is_the_smallest_that_holds_every_case():
    # Axial slices are (X, Y): 40 x 70 needs 64 x 96, 70 x 40 needs 96 x 64, both 96 x 96.
    found = [Measured(shape=(40, 70, 10)), Measured(shape=(70, 40, 10))]
    assert common_size(config(), cases({"a": None, "b": None}), found, "axial") == (96, 96)


def test_a_slice_size_that_is_too_small_names_the_case_and_what_it_needs():
    chosen = config(preparation={"slice_size": [64, 64]})
    found = [Measured(shape=(40, 60, 10)), Measured(shape=(40, 70, 10))]
    with pytest.raises(UserError, match=r"case b need 64 x 96; set at least 64 x 96"):
        common_size(chosen, cases({"a": None, "b": None}), found, "axial")


def test_voxel_sizes_that_differ_name_the_case_and_the_setting():
    found = [Measured(spacing_mm=(1, 1, z)) for z in (1.0, 1.005, 3.0)]
    with pytest.raises(UserError, match=r"case c has 1 x 1 x 3 mm.*preparation\.spacing_mm"):
        common_spacing(config(), cases({"a": None, "b": None, "c": None}), found)


@pytest.mark.parametrize(
    ("splits", "folds", "words"),
    [
        ({"folds": 2, "validation_fold": 2, "test_share": 0}, {}, "the folds are 0 to 1 only"),
        ({"validation_fold": 2}, {"a": "0", "b": "1"}, "the folds are 0 to 1 only"),
        ({"test_patients": ["a"]}, {"a": "0", "b": "1", "c": "test"}, "remove one of them"),
    ],
)
def test_splits_that_contradict_each_other_are_refused(
    splits: dict[str, Any], folds: dict[str, str | None], words: str
):
    given = cases(folds or dict.fromkeys("abcd"))
    with pytest.raises(UserError, match=words):
        decide_splits(config(splits=splits), given, given, measured(len(given)))


def test_a_test_patient_without_a_valid_case_is_named_as_such():
    found = cases(dict.fromkeys("abc"))
    chosen = config(splits={"folds": 2, "test_patients": ["c"]})
    with pytest.raises(UserError, match="patients c of splits.test_patients have no valid case"):
        decide_splits(chosen, found, found[:2], measured(2))


@pytest.mark.parametrize(("patient", "refused"), [("b", True), ("a", False)])
def test_one_scan_under_two_patients_is_a_leak(tmp_path: Path, patient: str, refused: bool):
    for name in "ab":
        (tmp_path / name).write_bytes(b"the same scan")
    given = [
        Case(name="a", patient="a", images={"T1": tmp_path / "a"}, mask=None),
        Case(name="b", patient=patient, images={"T1": tmp_path / "b"}, mask=None),
    ]
    facts = {key: file_facts(path) for key, path in files_of(given).items()}
    if not refused:
        refuse_leaks(given, facts)
        return
    with pytest.raises(UserError, match="T1 of cases a and b is the same file content"):
        refuse_leaks(given, facts)
