"""Splits: no patient in two subsets, folds that resemble each other, decided once."""

import json

import numpy as np
import pytest

from strokeseg.errors import UserError
from strokeseg.records.splits import (
    Splits,
    check_splits,
    draw_splits,
    given_splits,
    read_splits,
    write_splits,
)


def patients(count, lesion_free=0):
    """Patients p0, p1, ... with 0 ml for the first, then 1, 2, 4, 8 ... in steps of 1.2."""
    return {
        f"p{number}": 0.0 if number < lesion_free else 1.2 ** (number - lesion_free)
        for number in range(count)
    }


def drawn(lesion_ml, folds=5, test_patients=None, test_share=0.2, seed=0):
    return draw_splits(
        lesion_ml, folds=folds, test_patients=test_patients, test_share=test_share, seed=seed
    )


def valid_splits():
    return Splits(folds=(("a", "b"), ("c",)), test=("d",), seed=3)


@pytest.mark.parametrize(("count", "folds", "share"), [(28, 5, 0.2), (20, 3, 0.25), (7, 2, 0.0)])
def test_every_patient_is_in_exactly_one_subset(count, folds, share):
    lesion_ml = patients(count)
    splits = drawn(lesion_ml, folds=folds, test_share=share)
    everyone = [patient for subset in (*splits.folds, splits.test) for patient in subset]
    assert sorted(everyone) == sorted(lesion_ml)
    assert len(splits.test) == round(share * count)
    sizes = [len(fold) for fold in splits.folds]
    assert len(sizes) == folds and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_folds_and_test_set_resemble_each_other_in_lesion_volume(seed):
    # 30 patients have ranks 0..29. The test set takes one of each stretch of 5, which leaves
    # 4 of each, so that the next blocks of 4 are these same stretches: every subset has one
    # patient of each stretch. Its third is in 10..14, its fourth in 15..19: the median of
    # the six lies between (10 + 15) / 2 and (14 + 19) / 2.
    lesion_ml = patients(30)
    splits = drawn(lesion_ml, folds=4, seed=seed)
    for subset in (*splits.folds, splits.test):
        median_rank = np.median([int(patient[1:]) for patient in subset])
        assert len(subset) == 6
        assert 12.5 <= median_rank <= 16.5


@pytest.mark.parametrize("seed", range(10))
def test_lesion_free_patients_are_spread_evenly(seed):
    # 10 of 30 patients have no lesion; 2 go to the test set of 6, one of each stretch of 5;
    # the remaining 8 stand first in blocks of 4: two for each fold.
    lesion_ml = patients(30, lesion_free=10)
    splits = drawn(lesion_ml, folds=4, seed=seed)
    free = [sum(lesion_ml[patient] == 0 for patient in subset) for subset in splits.folds]
    assert free == [2, 2, 2, 2]
    assert sum(lesion_ml[patient] == 0 for patient in splits.test) == 2


def test_equal_seeds_draw_equal_splits_in_whatever_order_patients_come():
    lesion_ml = patients(20, lesion_free=8)
    backwards = dict(reversed(lesion_ml.items()))
    assert drawn(lesion_ml, seed=4) == drawn(backwards, seed=4)
    assert drawn(lesion_ml, seed=4).hash == drawn(backwards, seed=4).hash
    assert drawn(lesion_ml, seed=4) != drawn(lesion_ml, seed=5)


def test_a_named_test_set_is_taken_as_it_is():
    splits = drawn(patients(12), folds=3, test_patients=("p3", "p1"), test_share=0.5)
    assert splits.test == ("p1", "p3")
    assert sum(len(fold) for fold in splits.folds) == 10
    assert drawn(patients(12), test_patients=()).test == ()


def test_a_small_share_still_draws_one_patient():
    assert len(drawn(patients(6), folds=2, test_share=0.01).test) == 1


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"test_patients": ("p1", "nobody")}, r"\['nobody'\] are none"),
        ({"test_patients": ("p1", "p1")}, "twice"),
        ({"folds": 6}, "6 folds need as many patients, got 5 besides the 1"),
        ({"folds": 1}, "two folds or more"),
    ],
)
def test_draws_that_cannot_be_are_refused(settings, fault):
    with pytest.raises(UserError, match=fault):
        drawn(patients(6), **settings)


def test_given_folds_are_taken_as_they_are():
    splits = given_splits({"b": {"0"}, "a": {"0"}, "c": {"1"}, "d": {"test"}})
    assert splits == Splits(folds=(("a", "b"), ("c",)), test=("d",), seed=0)
    assert given_splits({"a": {"0"}, "c": {"1"}}).test == ()


def test_all_faults_of_given_folds_are_reported_at_once():
    with pytest.raises(UserError) as raised:
        given_splits({"a": {"0", "test"}, "b": {"2"}, "c": {"x"}, "d": {"1", "0"}, "e": {"3"}})
    message = str(raised.value)
    assert "'a' is in 2 subsets (0, test)" in message and "'d' is in 2 subsets (0, 1)" in message
    assert "['x'] are neither fold numbers nor 'test'" in message
    assert "column fold" in message


@pytest.mark.parametrize("numbers", [("0", "2"), ("1", "2"), ("0",), ("test",)])
def test_given_folds_must_be_numbered_without_a_gap(numbers):
    with pytest.raises(UserError, match="without a gap"):
        given_splits({f"p{n}": {number} for n, number in enumerate(numbers)})


@pytest.mark.parametrize(
    ("folds", "test", "fault"),
    [
        ((("a",), ("b", "a")), ("c",), r"\['a'\] are in several"),
        ((("a",), ("b",)), ("a", "b"), r"\['a', 'b'\] are in several"),
        ((("a", "a"), ("b",)), (), r"\['a'\]"),
        ((("a",), ()), ("b",), r"\[1\] have none"),
        ((("a",),), ("b",), "two folds or more, got 1"),
    ],
)
def test_check_names_offenders(folds, test, fault):
    with pytest.raises(UserError, match=fault):
        check_splits(Splits(folds=folds, test=test, seed=0))


def test_side_of_a_patient():
    splits = valid_splits()
    assert [splits.subset(patient) for patient in "abcd"] == ["0", "0", "1", "test"]
    with pytest.raises(UserError, match="'e' is in no fold"):
        splits.subset("e")


def test_written_splits_read_back_equal(tmp_path):
    write_splits(tmp_path / "splits.json", valid_splits())
    assert read_splits(tmp_path / "splits.json") == valid_splits()


def test_an_edited_file_is_refused(tmp_path):
    path = tmp_path / "splits.json"
    write_splits(path, valid_splits())
    values = json.loads(path.read_text(encoding="utf-8"))
    values["folds"] = [["a"], ["b", "c"]]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=r"splits\.json: was changed after it was written"):
        read_splits(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"folds": 1, "test": [], "seed": 0, "hash": ""}',
        '{"folds": [[1]], "test": []}',
    ],
)
def test_a_file_that_holds_no_splits_is_refused(tmp_path, text):
    (tmp_path / "splits.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"splits\.json"):
        read_splits(tmp_path / "splits.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"splits\.json: cannot be read"):
        read_splits(tmp_path / "splits.json")
