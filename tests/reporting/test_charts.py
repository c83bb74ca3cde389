"""Scales and charts: where values come to lie."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from strokeseg.leaderboard import LeaderboardRow
from strokeseg.reporting.case_figures import agreement_figure, size_figure
from strokeseg.reporting.charts import Scale
from strokeseg.reporting.search_figures import (
    history_figure,
    importance_figure,
    parallel_figure,
)
from strokeseg.summary import METRICS, ScoreRow


@pytest.mark.parametrize(
    ("scale", "value", "pixel"),
    [
        (Scale(low=0, high=10, start=100, end=200), 2.5, 125),
        # Upwards on a page is towards 0.
        (Scale(low=0, high=1, start=300, end=100), 0.25, 250),
        # 10 is half way from 1 to 100 by ratio.
        (Scale(low=1, high=100, start=0, end=80, log=True), 10, 40),
        # Where all values are equal they lie in the middle.
        (Scale(low=3, high=3, start=0, end=80), 3, 40),
    ],
)
def test_a_scale_takes_values_to_pixels(scale: Scale, value: float, pixel: float) -> None:
    assert scale(value) == pytest.approx(pixel)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(low=0, high=1, start=0, end=1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(low=-7, high=7, start=0, end=1), [-5, 0, 5]),
        (Scale(low=0.5, high=300, start=0, end=1, log=True), [1, 10, 100]),
        # Two powers of ten at least, or the ends.
        (Scale(low=2, high=30, start=0, end=1, log=True), [2, 30]),
        (Scale(low=-0.5, high=1.5, start=0, end=1, whole=True), [0, 1]),
        (Scale(low=3, high=3, start=0, end=1), [3]),
    ],
)
def test_ticks_are_round_values_on_the_scale(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == pytest.approx(ticks)


def test_the_history_tells_complete_stopped_and_further_runs_apart(
    board: list[LeaderboardRow],
) -> None:
    figure = history_figure("axial", board)
    assert figure is not None
    # Trials 0, 1 and 4 are complete; 2 was stopped; 5 runs 1 again; 3 failed without a score.
    drawn = figure.chart.split("best-so-far")[1].split("complete</text>")[0]
    hints = re.findall(r"trial (\d): Dice ([\d.]+), (\w+)", drawn)
    assert [int(trial) for trial, _, _ in hints] == [0, 1, 2, 4, 5]
    assert [len(figure.table.rows), len(figure.table.columns)] == [5, 4]


def test_nothing_is_drawn_of_nothing(board: list[LeaderboardRow]) -> None:
    failed = [replace(row, dice=None) for row in board]
    assert history_figure("axial", failed) is None
    assert parallel_figure("axial", failed) is None
    assert importance_figure("axial", {}) is None
    assert size_figure([]) is None
    assert agreement_figure([]) is None


def test_parallel_coordinates_leave_out_what_never_differs(board: list[LeaderboardRow]) -> None:
    figure = parallel_figure("axial", board)
    assert figure is not None
    assert figure.table.columns == ("trial", "learning_rate", "encoder", "encoder_depth", "Dice")
    # One of four trials is the best quarter.
    assert figure.chart.count('class="good"') == 1
    assert figure.chart.count('class="other"') == 3


def test_one_trial_alone_has_no_parallel_coordinates(board: list[LeaderboardRow]) -> None:
    assert parallel_figure("axial", board[:1]) is None


def _scores(*volumes: tuple[float, float]) -> list[ScoreRow]:
    blank: dict[str, float | None] = dict.fromkeys(METRICS)
    return [
        ScoreRow(
            case=str(index),
            patient=str(index),
            method="vote",
            kind="vote",
            values={**blank, "dice": 0.5, "true_ml": true, "predicted_ml": found},
        )
        for index, (true, found) in enumerate(volumes)
    ]


def test_agreement_shows_bias_and_limits() -> None:
    figure = agreement_figure(_scores((10, 12), (20, 20), (30, 34)))
    assert figure is not None
    # Differences 2, 0 and 4: mean 2, standard deviation 2, limits 2 - 3.92 and 2 + 3.92.
    for text in ("mean difference +2.0", "upper limit +5.9", "lower limit -1.9"):
        assert text in figure.chart
    assert figure.table.rows[2] == ("2", "30.00", "34.00", "+4.00")


def test_two_cases_have_no_limits() -> None:
    figure = agreement_figure(_scores((10, 12), (20, 20)))
    assert figure is not None
    assert "limit" not in figure.chart
    assert "limits" not in figure.caption


def test_cases_without_a_lesion_have_no_size() -> None:
    figure = size_figure(_scores((0, 3), (20, 20)))
    assert figure is not None
    assert [row[0] for row in figure.table.rows] == ["1"]
