"""Scales and marks."""

from __future__ import annotations

import pytest

from strokeseg.reporting.svg import SHAPES, Scale, point

LINEAR = Scale(low=0, high=10, start=100, end=300)
LOGARITHMIC = Scale(low=0.1, high=1000, start=0, end=400, logarithmic=True)


@pytest.mark.parametrize(
    ("scale", "value", "position"),
    [
        (LINEAR, 0, 100),
        (LINEAR, 2.5, 150),
        (LINEAR, 11, 300),
        (LINEAR, -1, 100),
        # Four decades over 400: one every 100.
        (LOGARITHMIC, 1, 100),
        (LOGARITHMIC, 100, 300),
        # A lesion of no volume has no logarithm.
        (LOGARITHMIC, 0, 0),
        # Upside down, as the vertical axis of a picture is.
        (Scale(low=0, high=1, start=200, end=0), 0.25, 150),
    ],
)
def test_a_scale_places_values(scale: Scale, value: float, position: float) -> None:
    assert scale.place(value) == pytest.approx(position)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (LINEAR, [0, 2, 4, 6, 8, 10]),
        (Scale(low=-0.5, high=3.5, start=0, end=1), [0, 1, 2, 3]),
        (Scale(low=2, high=30, start=0, end=1, logarithmic=True), [2, 5, 10, 20]),
    ],
)
def test_ticks_are_round_values_within_the_scale(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("shape", [*SHAPES, "cross"])
def test_a_point_says_what_it_is_when_one_points_at_it(shape: str) -> None:
    assert "<title>case &lt;1&gt;</title>" in point(1, 2, shape, "hue-a", "case <1>")
