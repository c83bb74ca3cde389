"""The tables of results and of the search: what stands in their cells."""

from __future__ import annotations

from typing import Any

import pytest

from strokeseg.imaging.metric_names import METRICS
from strokeseg.learning.ensemble_record import Rule
from strokeseg.reporting.method_figure import method_figure
from strokeseg.reporting.result_tables import p_text, result_tables, size_text
from strokeseg.reporting.search_tables import choice_table, rule_text


def _method(kind: str, mean: float | None, cases: int = 4) -> dict[str, Any]:
    statistic = {
        **dict.fromkeys(("mean", "median", "q1", "q3"), mean),
        "low": None if mean is None else mean - 0.1,
        "high": None if mean is None else mean + 0.1,
        "cases": cases,
    }
    return {
        "kind": kind,
        "cases": 4,
        "metrics": dict.fromkeys(METRICS, statistic),
        "lesions": {"true": 5, "predicted": 6, "missed": 1, "false": 2},
        "missed_cases": 0,
    }


SUMMARY: dict[str, Any] = {
    "methods": {
        "vote": _method("vote", 0.6),
        "axial": _method("axis", 0.5, cases=3),
        "axial-0001": _method("member", 0.4),
        "other": _method("rival", None, cases=0),
    },
    "by_size": [],
    "tests": [],
}


def test_members_have_a_table_of_their_own() -> None:
    tables = {table.title.partition(":")[0]: table for table in result_tables(SUMMARY)}
    assert [row[0] for row in tables["Overlap"].rows] == ["vote", "axial", "other"]
    assert [row[0] for row in tables["Each member by itself"].rows] == ["axial-0001"]
    # Empty ones are left out.
    assert "Paired comparisons" not in tables


def test_a_mean_over_fewer_cases_says_over_how_many() -> None:
    overlap = result_tables(SUMMARY)[0]
    assert [row[3] for row in overlap.rows] == [
        "0.600 (0.500 to 0.700)",
        "0.500 (0.400 to 0.600) [3 cases]",
        "- [0 cases]",
    ]


def test_a_method_without_a_score_is_not_drawn() -> None:
    figure = method_figure(SUMMARY)
    assert figure is not None
    assert [row[0] for row in figure.table.rows] == ["vote", "axial"]
    assert figure.chart.count('class="interval"') == 2


@pytest.mark.parametrize(
    ("p", "text"), [(0.0625, "0.062"), (0.0004, "below 0.001"), (1.0, "1.000")]
)
def test_small_probabilities_are_bounded(p: float, text: str) -> None:
    assert p_text(p) == text


def test_the_last_bin_is_open() -> None:
    assert size_text({"low_ml": 5.0, "high_ml": 20.0}) == "5 to 20 ml"
    assert size_text({"low_ml": 50.0, "high_ml": None}) == "50 ml and more"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule(), "majority of the axes' masks, threshold 0.5; members of an axis by mean"),
        (
            Rule(between="soft", within="vote", axis_weights={"axial": 0.25}),
            "mean of the axes' probabilities, threshold 0.5; members of an axis by vote; "
            "weights axial 0.25",
        ),
        (
            Rule(threshold=0.4, smallest_lesion_mm3=30),
            "majority of the axes' masks, threshold 0.4; members of an axis by mean; "
            "lesions below 30 mm³ dropped",
        ),
    ],
)
def test_a_rule_is_said_in_words(rule: Rule, text: str) -> None:
    assert rule_text(rule) == text


def test_a_step_says_what_it_brought() -> None:
    step = {"name": "threshold", "tried": 9, "best": "0.4", "p": 0.25, "taken": False}
    dice = {"dice_before": 0.5, "dice_after": 0.52, "gain": 0.02}
    choice = {"method": "guard", "patients": 4, "steps": [{**step, **dice}], "caveat": "Flatters."}
    (row,) = choice_table(choice).rows
    assert row == ("threshold", "9", "0.4", "0.500", "0.520", "+0.020", "0.250", "no")
    assert choice_table(choice).note == "Flatters."
    left_out = {"dice_start": 0.5, "dice_chosen": 0.49}
    assert (
        "0.500 as it started, 0.490 as chosen"
        in choice_table({**choice, "left_out": left_out}).note
    )
