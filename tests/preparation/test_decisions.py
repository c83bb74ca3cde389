"""What all cases decide together, on records made by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.preparation import leak_audit, similarity
from strokeseg.preparation.decisions import common_size, common_spacing, decide_splits
from strokeseg.preparation.leak_audit import (
    audit_leaks,
    check_distinct_patients,
    refuse_leaks,
    refuse_resemblances,
)
from strokeseg.preparation.similarity import SIDE
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.preparation import Measured, file_facts, files_of, settings_of


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


def picture(seed: int) -> NDArray[np.int8]:
    """A descriptor of its own: two of them have a correlation of about 0."""
    return np.random.default_rng(seed).integers(-127, 128, (SIDE,) * 3).astype(np.int8)


def scans(pictures: dict[str, tuple[int, int]]) -> list[Measured]:
    """What the check would find of T1 and T2 with these pictures."""
    return [
        Measured(descriptors=tuple(picture(seed) for seed in seeds)) for seeds in pictures.values()
    ]


# T2 of case c is the flipped T2 of case a, as a file that went to the wrong folder.
EXCHANGED = {"a": (1, 2), "b": (3, 4), "c": (5, 2)}


def two_sequences(**splits: Any) -> ExperimentConfig:
    return config(data={"path": "cases", "sequences": ["T1", "T2"]}, splits=splits)


def test_one_exchanged_sequence_is_a_leak_that_names_pair_sequence_and_remedies():
    found = scans(EXCHANGED)
    flipped = np.ascontiguousarray(found[2].descriptors[1][::-1])
    found[2] = Measured(descriptors=(found[2].descriptors[0], flipped))
    audit = audit_leaks(two_sequences(), cases(dict.fromkeys("abc")), found)
    assert str(audit) == (
        "Leak audit: 3 cases compared, nearest pair a and c, similarity 1.00 in T2 "
        "(refused from 0.85)"
    )
    with pytest.raises(UserError) as refusal:
        refuse_resemblances(audit.leaks, Path("similarity.csv"))
    assert "cases a and c are nearly the same (similarity 1.00 in T2" in str(refusal.value)
    assert "column patient of a manifest" in str(refusal.value)
    assert 'splits.distinct_patients: [["a", "c"]] (all cases in similarity.csv)' in str(
        refusal.value
    )


def test_the_nearest_case_of_another_patient_is_reported_for_every_case():
    audit = audit_leaks(two_sequences(), cases(dict.fromkeys("abc")), scans(EXCHANGED))
    nearest = {found.case.name: found.other.name for found in audit.nearest}
    assert (nearest["a"], nearest["c"]) == ("c", "a") and nearest["b"] in "ac"
    assert [(leak.case.name, leak.other.name) for leak in audit.leaks] == [("a", "c")]


@pytest.mark.parametrize("pair", [("a", "c"), ("c", "a")])
def test_patients_known_to_be_distinct_may_resemble_each_other(pair: tuple[str, str]):
    chosen = two_sequences(distinct_patients=[pair])
    audit = audit_leaks(chosen, cases(dict.fromkeys("abc")), scans(EXCHANGED))
    refuse_resemblances(audit.leaks, Path("similarity.csv"))
    assert str(audit).endswith(", pairs of splits.distinct_patients aside: 1")
    # What was not compared is not the nearest, either.
    assert "b" in str(audit).split("nearest pair ")[1].split(",")[0]


def test_two_cases_of_one_patient_may_resemble_each_other():
    given = [Case(name=name, patient="p", images={}, mask=None) for name in ("first", "second")]
    audit = audit_leaks(two_sequences(), given, scans({"first": (1, 2), "second": (1, 2)}))
    assert audit.leaks == () and audit.nearest == ()
    assert str(audit) == "Leak audit: 2 cases compared"


def test_many_leaks_are_shortened():
    # Four cases that are one: six pairs.
    found = scans(dict.fromkeys("abcd", (1, 2)))
    audit = audit_leaks(two_sequences(), cases(dict.fromkeys("abcd")), found)
    with pytest.raises(UserError, match="cases a and b are .*; and 1 pairs more; name one"):
        refuse_resemblances(audit.leaks, Path("similarity.csv"))


def test_distinct_patients_must_be_patients_of_the_data():
    chosen = config(splits={"distinct_patients": [["a", "x"], ["y", "b"]]})
    with pytest.raises(UserError, match=r"\['x', 'y'\] are none; there are \['a', 'b'\]"):
        check_distinct_patients(chosen, cases(dict.fromkeys("ab")))


def test_naming_distinct_patients_afterwards_changes_no_preparation():
    assert settings_of(config(splits={"distinct_patients": [["a", "b"]]})) == settings_of(config())


@pytest.mark.parametrize("seed", range(3))
def test_the_audit_in_blocks_is_that_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch, seed: int
):
    """Against the plain way: the whole matrix of every sequence, and the largest of each pair."""
    generator = np.random.default_rng(seed)
    count = 23
    people = generator.integers(-127, 128, (9, SIDE, SIDE, SIDE)).astype(np.int8)
    # Some scans twice or more, one sequence of some exchanged, some that show nothing.
    chosen = generator.integers(0, 9, (2, count))
    chosen[1, :15] = chosen[0, :15]
    descriptors = np.where(
        (generator.random((2, count)) < 0.8)[..., None, None, None], people[chosen], 0
    ).astype(np.int8)
    patients = [f"p{number}" for number in generator.integers(0, 15, count)]
    given = [
        Case(name=f"c{place}", patient=patient, images={}, mask=None)
        for place, patient in enumerate(patients)
    ]
    apart = [sorted({patients[0], patients[1], "p99"})[:2], sorted({patients[3], "p98", "p99"})[:2]]
    settings = two_sequences(distinct_patients=apart)
    found = [
        Measured(descriptors=(first, second)) for first, second in zip(*descriptors, strict=True)
    ]
    blocks = partial(similarity.blocks_of_similarities, side=4)
    monkeypatch.setattr(leak_audit, "blocks_of_similarities", blocks)
    audit = audit_leaks(settings, given, found)

    matrices = np.stack([similarity.similarities(list(column)) for column in descriptors])
    best = matrices.max(axis=0)
    known = {frozenset(pair) for pair in apart}
    for row, column in np.ndindex(count, count):
        pair = {patients[row], patients[column]}
        if len(pair) == 1 or pair in known:
            best[row, column] = -np.inf
    leaks = [(row, column) for row, column in np.argwhere(np.triu(best >= 0.85))]
    assert {(leak.case.name, leak.other.name) for leak in audit.leaks} == {
        (f"c{row}", f"c{column}") for row, column in leaks
    }
    assert [leak.similarity for leak in audit.leaks] == sorted(
        (pytest.approx(float(best[place]), abs=1e-6) for place in leaks),
        key=lambda value: -value.expected,
    )
    assert leaks and len(audit.nearest) == count
    for row, nearest in enumerate(audit.nearest):
        column = int(nearest.other.name[1:])
        channel = settings.data.sequences.index(nearest.sequence)
        assert nearest.case.name == f"c{row}"
        assert nearest.similarity == pytest.approx(float(best[row].max()), abs=1e-6)
        assert matrices[channel, row, column] == pytest.approx(nearest.similarity, abs=1e-6)
        assert np.isfinite(best[row, column])
