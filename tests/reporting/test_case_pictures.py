"""Which cases and slices are shown, and that the outlines are where the masks are."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR
from strokeseg.imaging.volume import Grid
from strokeseg.records.summary import ScoreRow
from strokeseg.reporting.pictures import (
    SeenCase,
    cases_to_show,
    draw_planes,
    see_case,
    slice_to_show,
)
from strokeseg.reporting.results import Results
from strokeseg.reporting.viewer import _small, _sprite


def rows_of(*dice: float) -> list[ScoreRow]:
    return [
        ScoreRow(case=str(place), patient="1", method="vote", kind="vote", values={"dice": score})
        for place, score in enumerate(dice)
    ]


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ((), {}),
        ((0.5,), {"worst": "0"}),
        ((0.1, 0.5), {"worst": "0", "best": "1"}),
        ((0.1, 0.5, 0.9), {"worst": "0", "median": "1", "best": "2"}),
        ((0.1, 0.2, 0.5, 0.9), {"worst": "0", "median": "1", "best": "3"}),
    ],
)
def test_worst_median_and_best_are_different_cases(
    dice: tuple[float, ...], chosen: dict[str, str]
) -> None:
    found = cases_to_show(rows_of(*dice))
    assert {which: row.case for which, row in found.items()} == chosen


def seen(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> SeenCase:
    grey = np.full(shape, 100, dtype=np.uint8)
    return SeenCase(
        name="1",
        sequence="DWI",
        grey=grey,
        truth=np.zeros(shape, dtype=bool),
        prediction=np.zeros(shape, dtype=bool),
        grid=Grid(shape=shape, affine_ras=np.diag([*spacing_mm, 1.0])),
    )


def test_the_slice_shown_has_most_of_the_true_lesion() -> None:
    case = seen((20, 20, 20), (1, 1, 1))
    assert slice_to_show(case, 2) == 10
    case.prediction[3:5, 3:5, 4] = True
    assert slice_to_show(case, 2) == 4
    case.truth[5, 5, 7] = case.truth[5:7, 5, 8] = True
    assert slice_to_show(case, 2) == 8


def test_planes_are_as_wide_as_the_brain_and_show_both_outlines() -> None:
    # 20 x 40 x 5 voxels of 2 x 1 x 8 mm: a cube of 40 mm, so all three panels are square.
    case = seen((20, 40, 5), (2, 1, 8))
    case.truth[4:9, 10:20, 2] = True
    case.prediction[6:12, 15:25, 2] = True
    picture = Image.open(BytesIO(draw_planes(case)))
    assert picture.size == (3 * 340 + 2 * 6, 340)
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {TRUTH_COLOUR, PREDICTION_COLOUR} <= colours


def test_a_case_is_seen_on_one_grid_and_cut_to_its_brain(results: Results) -> None:
    name = results.rows()[-1].case
    case = see_case(results, name)
    # The best one is predicted as it is: nothing was moved.
    assert np.array_equal(case.truth, case.prediction)
    volume_ml = case.truth.sum() * np.prod(case.grid.spacing_mm) / 1000
    assert volume_ml == pytest.approx(results.rows()[-1].values["true_ml"], rel=1e-3)
    assert case.sequence == "FLAIR"
    # No more than a margin of three voxels is left on any side.
    filled = np.nonzero(case.grey)
    assert all(along.min() <= 3 for along in filled)


def test_a_sprite_holds_sagittal_slices_with_superior_up() -> None:
    volume = np.zeros((5, 4, 3), dtype=np.uint8)
    volume[4, 1, 2] = 9
    sprite = _sprite(volume)
    # Five slices go into three rows of two, each of three rows and four columns.
    assert sprite.shape == (3 * 3, 2 * 4)
    # The fifth slice is the first of the third row; the topmost voxel is its uppermost.
    assert sprite[2 * 3 + 0, 0 * 4 + 1] == 9 and sprite.sum() == 9


def test_the_viewer_knows_where_a_voxel_is_in_the_patient() -> None:
    # As many voxels, and as coarse, as the viewer draws: nothing is filled in or left out.
    case = seen((112, 20, 10), (2, 2, 2))
    case.truth[25, 4, 3] = True
    _, classes, affine_ras = _small(case)
    ((x, y, z),) = np.argwhere(classes == 1)
    # The patient's right comes first, and brainsprite counts voxels from 1.
    assert (x, y, z) == (111 - 25, 4, 3)
    assert affine_ras @ [x + 1, y + 1, z + 1, 1] == pytest.approx([50, 8, 6, 1])
