from __future__ import annotations

import numpy as np
import pytest

from strokeseg.evaluation.intervals import mean_interval


def test_equal_values_leave_no_doubt() -> None:
    assert mean_interval([0.5, 0.5, 0.5], ["a", "b", "c"]) == (0.5, 0.5)


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_patients_have_no_interval(patients: list[str]) -> None:
    assert mean_interval([0.1, 0.9][: len(patients)], patients) == (None, None)


def test_two_patients_span_from_one_to_the_other() -> None:
    # A quarter of the draws takes the lower one twice: more than 2.5 % on each side.
    assert mean_interval([0.2, 0.8], ["a", "b"]) == pytest.approx((0.2, 0.8))


def test_the_interval_is_that_of_the_normal_approximation_for_many_patients() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, size=400)
    interval = mean_interval(values.tolist(), [str(patient) for patient in range(400)])
    half = 1.96 * values.std() / np.sqrt(400)
    # half is about 0.01; 10,000 draws place its ends to a few hundredths of that.
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


def test_cases_of_a_patient_come_together() -> None:
    # Ten cases of each of two patients tell no more than one of each.
    values = [0.2] * 10 + [0.8] * 10
    assert mean_interval(values, ["a"] * 10 + ["b"] * 10) == pytest.approx((0.2, 0.8))


def test_equal_input_gives_equal_intervals() -> None:
    values, patients = [0.1, 0.4, 0.9], ["a", "b", "c"]
    assert mean_interval(values, patients) == mean_interval(values, patients)
