"""The cases that are shown: which they are, their pictures, and the viewer's sprites."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR
from strokeseg.reporting.pictures import planes_picture
from strokeseg.reporting.sights import Sight, telling_cases
from strokeseg.reporting.viewer import cubes, sprite, viewer, viewer_script
from strokeseg.summary import METRICS, ScoreRow


def _rows(*dice: float | None) -> list[ScoreRow]:
    blank: dict[str, float | None] = dict.fromkeys(METRICS)
    return [
        ScoreRow(
            case=f"case{index}",
            patient="p",
            method="vote",
            kind="vote",
            values={**blank, "dice": value},
        )
        for index, value in enumerate(dice)
    ]


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ([0.5, 0.1, 0.9, 0.6, 0.2], {"worst": "case1", "median": "case0", "best": "case2"}),
        # Of four the lower one of the middle.
        ([0.4, 0.1, 0.9, 0.6], {"worst": "case1", "median": "case0", "best": "case2"}),
        ([0.4, 0.1], {"worst": "case1", "best": "case0"}),
        ([0.4], {"worst": "case0"}),
        ([None, 0.4, None], {"worst": "case1"}),
        ([], {}),
    ],
)
def test_worst_median_and_best_are_shown_and_none_twice(
    dice: list[float | None], chosen: dict[str, str]
) -> None:
    assert {rank: row.case for rank, row in telling_cases(_rows(*dice)).items()} == chosen


@pytest.fixture
def sight() -> Sight:
    """A brain of 20 x 30 x 10 voxels of 2 x 2 x 4 mm; truth and prediction overlap in part."""
    image = np.random.default_rng(0).normal(size=(1, 20, 30, 10)).astype(np.float32)
    truth, prediction = np.zeros((2, 20, 30, 10), dtype=bool)
    truth[2:6, 10:16, 4:7] = True
    prediction[4:8, 10:16, 4:7] = True
    return Sight(
        rank="best",
        case='"><b>',
        dice=0.5,
        sequences=("DWI",),
        images=image,
        truth=truth,
        prediction=prediction,
        spacing_mm=(2.0, 2.0, 4.0),
    )


def test_three_planes_stand_side_by_side_to_one_scale(sight: Sight) -> None:
    picture = Image.open(io.BytesIO(planes_picture(sight, 0)))
    # 40 x 60 x 40 mm: the longest side has 260 pixels, 40 mm have 173. Axial slices are 40 mm
    # wide, coronal ones too, sagittal ones 60; two gaps of 4 pixels.
    assert picture.size == (173 + 4 + 173 + 4 + 260, 260)
    colours = {colour for _, colour in picture.convert("RGB").getcolors() or []}
    assert {TRUTH_COLOUR, PREDICTION_COLOUR} <= colours


def test_a_sight_without_any_lesion_has_a_picture(sight: Sight) -> None:
    nothing = np.zeros_like(sight.truth)
    bare = Sight(**{**vars(sight), "truth": nothing, "prediction": nothing})
    assert Image.open(io.BytesIO(planes_picture(bare, 0))).size[1] == 260


def test_cubes_keep_proportions_and_put_the_patients_right_first(sight: Sight) -> None:
    image, overlay = cubes(sight)
    # Voxels of 4 mm become two of 2 mm.
    assert image.shape == overlay.shape == (20, 30, 20)
    # X is turned around: voxels 2 to 5 come to lie at 14 to 17, and 4 to 7 at 12 to 15.
    assert overlay[:, 12, 10].tolist() == [0] * 12 + [2, 2, 3, 3, 1, 1, 0, 0]


def test_a_sprite_holds_every_sagittal_slice() -> None:
    volume = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)
    pixels = sprite(volume)
    # 5 slices in 3 rows and 2 columns, each 2 pixels high and 3 wide.
    assert pixels.shape == (3 * 2, 2 * 3)
    for index in range(5):
        row, column = divmod(index, 2)
        tile = pixels[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        # Superior is above.
        assert tile.tolist() == [volume[index, :, 1].tolist(), volume[index, :, 0].tolist()]
    assert not pixels[4:, 3:].any()


def test_the_viewer_works_with_names_that_are_no_markup(sight: Sight) -> None:
    shown = viewer(sight, "viewer-best")
    assert "<b>" not in shown
    assert "brainsprite" in viewer_script()
