"""Every score has a name that tables can print."""

from dataclasses import fields

import pytest

from strokeseg.imaging.metric_names import METRICS
from strokeseg.imaging.metrics import Scores


def test_every_score_has_a_name_in_the_same_order():
    assert list(METRICS) == [field.name for field in fields(Scores)]


def test_titles_are_distinct():
    assert len({name.title for name in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_units_are_those_in_the_names_of_scores(metric):
    unit = next((unit for unit in ("mm", "ml") if metric.endswith(f"_{unit}")), "")
    assert METRICS[metric].unit == unit
    assert METRICS[metric].definition


@pytest.mark.parametrize(
    ("metric", "heading", "better"),
    [
        ("dice", "Dice", "high"),
        ("hd95_mm", "HD95, mm", "low"),
        ("volume_difference_ml", "volume difference, ml", "low"),
        ("true_ml", "true volume, ml", None),
    ],
)
def test_headings_tell_units(metric, heading, better):
    assert (METRICS[metric].heading, METRICS[metric].better) == (heading, better)


def test_the_definition_says_how_hd95_takes_two_directions():
    assert "pooled" in METRICS["hd95_mm"].definition
