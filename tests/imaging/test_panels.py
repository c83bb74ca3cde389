"""Boxes, levels of grey and outlines of panels."""

from __future__ import annotations

import numpy as np
import pytest

from strokeseg.imaging.panels import PREDICTION_COLOUR, bounding_box, draw_outlines, grey, outlines


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0, (slice(1, 4), slice(5, 6), slice(0, 2))),
        # The array ends before the margin does.
        (2, (slice(0, 6), slice(3, 8), slice(0, 4))),
    ],
)
def test_a_box_is_widened_within_the_array(margin: int, expected: tuple[slice, ...]) -> None:
    mask = np.zeros((7, 8, 9), dtype=bool)
    mask[1:4, 5, 0:2] = True
    assert bounding_box(mask, margin) == expected


def test_the_box_of_an_empty_mask_is_the_whole_array() -> None:
    assert bounding_box(np.zeros((3, 4), dtype=bool), 1) == (slice(0, 3), slice(0, 4))


def test_the_darkest_tissue_is_brighter_than_the_background() -> None:
    levels = grey(np.array([[0, -2, -1, 3]], dtype=np.float32))
    assert levels[0, 0] == 0
    assert levels[0, 1] == 20
    assert levels[0, 3] == 252


def test_lines_become_wider_away_from_each_other() -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[3:9, 3:9] = True
    outside, inside = outlines(mask, mask, width=2)
    # A square of six: two rings inside are 6 x 6 without 2 x 2. Outside are 2 x 6 pixels at each
    # side and one at each corner, whose diagonal neighbour is two steps away.
    assert inside.sum() == 36 - 4
    assert outside.sum() == 4 * 12 + 4 * 1
    panel = draw_outlines(np.zeros((12, 12), dtype=np.uint8), mask, mask, width=2)
    assert (panel == PREDICTION_COLOUR).all(axis=-1).sum() == 32
