from __future__ import annotations

import numpy as np
import pytest

from strokeseg.imaging.lesions import count_lesions


@pytest.mark.parametrize("side", [3, 5, 9])
def test_voxels_that_touch_no_other_are_a_lesion_each(side: int) -> None:
    mask = np.zeros((side, side, side), dtype=bool)
    mask[::2, ::2, ::2] = True
    counts = count_lesions(mask, mask)
    assert counts.true == counts.predicted == ((side + 1) // 2) ** 3
