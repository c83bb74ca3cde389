from __future__ import annotations

import numpy as np
import pytest

from strokeseg.evaluation.scoring import area_under_roc


@pytest.mark.parametrize(
    ("values", "positive", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        # Of the four pairs of a positive (0.3, 0.5) and another (0.1, 0.5): 0.3 > 0.1,
        # 0.3 < 0.5, 0.5 > 0.1, and 0.5 ties.
        ([0.3, 0.1, 0.5, 0.5], [1, 0, 1, 0], 2.5 / 4),
        ([0.1, 0.9], [1, 1], None),
        ([0.1, 0.9], [0, 0], None),
    ],
)
def test_area_is_the_share_of_pairs_in_order(
    values: list[float], positive: list[int], area: float | None
) -> None:
    found = area_under_roc(np.array(values, np.float32), np.array(positive, bool))
    assert found == pytest.approx(area)
