from __future__ import annotations

import numpy as np
import pytest

from strokeseg.evaluation.intervals import mean_interval

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("values", "patients", "mean"),
    [
        ([0.5, 0.5, 0.5], ["a", "b", "c"], 0.5),
        # Equal on paper, but not in floats.
        ([0.1 + 0.2, 0.3], ["a", "b"], 0.3),
        # Patient a has a mean of 0.5, too.
        ([0.4, 0.6, 0.5], ["a", "a", "b"], 0.5),
    ],
)
def test_patients_of_one_mean_leave_no_doubt(
    values: list[float], patients: list[str], mean: float
) -> None:
    assert mean_interval(values, patients) == pytest.approx((mean, mean))


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_patients_have_no_interval(patients: list[str]) -> None:
    assert mean_interval([0.1, 0.9][: len(patients)], patients) == (None, None)


def test_two_patients_span_from_one_to_the_other() -> None:
    # A quarter of the resamples takes the lower one twice: more than 2.5 % on each side.
    assert mean_interval([0.2, 0.8], ["a", "b"]) == pytest.approx((0.2, 0.8))


def test_the_interval_is_that_of_the_normal_approximation_for_many_patients() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, size=400)
    interval = mean_interval(values.tolist(), [str(patient) for patient in range(400)])
    half = 1.96 * values.std() / np.sqrt(400)
    # half is about 0.01; 2,000 resamples place its ends to a few hundredths of that.
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


def test_cases_of_a_patient_come_together() -> None:
    # Ten cases of each of two patients tell no more than one of each.
    values = [0.2] * 10 + [0.8] * 10
    assert mean_interval(values, ["a"] * 10 + ["b"] * 10) == pytest.approx((0.2, 0.8))


def test_the_interval_leans_to_the_side_of_the_outlier() -> None:
    # A resample of nine patients at 0 and one at 1 takes that one 0 to 5 times with probabilities
    # 0.349, 0.387, 0.194, 0.057, 0.011 and 0.001. BCa corrects by z0 = 0.106 (of 0.349 + 0.387 / 2)
    # and a = 8 / 6 / sqrt(90) = 0.141: its ends are the quantiles 0.086 and 0.999, where 0.025 and
    # 0.975 would end at 0.3.
    low, high = mean_interval([0.0] * 9 + [1.0], [str(patient) for patient in range(10)])
    assert low == 0.0
    assert 0.4 <= high <= 0.5


def test_equal_input_gives_equal_intervals() -> None:
    values, patients = [0.1, 0.4, 0.9], ["a", "b", "c"]
    assert mean_interval(values, patients) == mean_interval(values, patients)
