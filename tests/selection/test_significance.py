"""The test of the best of several options, by numbers that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from strokeseg.selection.significance import best_option, smallest_p


def test_p_of_one_option_counts_the_flips_of_signs() -> None:
    # Sums of (±1 ±2 ±3) that reach 6 of the 8: only +1+2+3. With a loss of 1 instead of the
    # gain of 1, the sum is 4: reached by -1+2+3 and +1+2+3.
    assert best_option(np.array([[1.0, 2.0, 3.0]])).p == 1 / 8
    assert best_option(np.array([[-1.0, 2.0, 3.0]])).p == 2 / 8
    # Without any gain every flip reaches it.
    assert best_option(np.zeros((1, 3))).p == 1


def test_trying_more_options_makes_luck_more_probable() -> None:
    alone = np.array([[1.0, 1.0, 1.0]])
    # The second option negates the first: its mean is 1 when all signs are flipped.
    with_negation = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    assert best_option(alone).p == 1 / 8
    assert best_option(with_negation).p == 2 / 8
    # An option that is the same as another adds no luck.
    assert best_option(np.repeat(alone, 20, axis=0)).p == 1 / 8


def test_an_option_that_ruins_all_hides_no_other() -> None:
    small = np.array([0.01, 0.02, 0.01, 0.02, 0.01, 0.02])
    # Unscaled, every flip that helps the ruinous option would exceed the small gain. Scaled, only
    # the observed signs and, with the ruinous one's all turned to gains, all flipped do.
    assert best_option(np.stack([small, np.full(6, -0.9)])).p == 2 / 64


def test_the_first_of_equal_options_wins_and_its_gain_is_a_mean() -> None:
    found = best_option(np.array([[0.0, 0.1], [0.1, 0.2], [0.2, 0.1]]))
    assert (found.index, found.gain) == (1, pytest.approx(0.15))


def test_many_patients_are_tested_by_random_flips_that_are_always_the_same() -> None:
    gains = np.random.default_rng(1).normal(0.3, 1, size=(5, 30))
    assert best_option(gains) == best_option(gains)
    # All 40 patients gain alike: no flip but the observed signs can reach that, in 10,000.
    assert best_option(np.ones((1, 40))).p == 1 / 10_000


def test_the_smallest_p_is_that_of_the_observed_signs_alone() -> None:
    assert smallest_p(4) == 1 / 16
    assert smallest_p(12) == 1 / 4096
    assert smallest_p(40) == 1 / 10_000
    for patients in (4, 12):
        assert best_option(np.ones((1, patients))).p == smallest_p(patients)


def test_luck_alone_is_significant_in_one_case_of_twenty_at_most() -> None:
    generator = np.random.default_rng(0)
    draws = [best_option(generator.normal(size=(20, 8))).p <= 0.05 for _ in range(400)]
    # Binomial(400, 0.05): mean 20, standard deviation 4.4.
    assert sum(draws) <= 20 + 3 * 4.4


def test_no_option_is_no_test() -> None:
    with pytest.raises(ValueError, match="needs options and patients"):
        best_option(np.zeros((0, 3)))
