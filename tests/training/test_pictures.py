"""Which slices are shown, and what is drawn where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR, outlines
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.pictures import SeenSlice, draw_picture, slices_to_show
from strokeseg.training.slice_set import SliceSet


@pytest.mark.parametrize(
    ("lesion", "overlap", "predicted", "expected"),
    [
        # Dice 2 * 4 / (8 + 8) = 0.5, 2 * 6 / (8 + 8) = 0.75 and 2 * 1 / (4 + 4) = 0.25; false
        # positives 4, 2 and 3, and 5 on a slice without lesion.
        (
            [8, 8, 4, 0],
            [4, 6, 1, 0],
            [8, 8, 4, 5],
            {"best": 1, "worst": 2, "most_false_positives": 3},
        ),
        # Nothing predicted: all lesion slices have 0, and the largest lesion tells most.
        ([3, 9, 0, 5], [0, 0, 0, 0], [0, 0, 0, 0], {"best": 1, "worst": 1}),
        # Everything right: the largest is best, and worst as well.
        ([3, 0, 9], [3, 0, 9], [3, 0, 9], {"best": 2, "worst": 2}),
        ([0, 0], [0, 0], [0, 2], {"most_false_positives": 1}),
        ([0, 0], [0, 0], [0, 0], {}),
    ],
)
def test_the_slices_that_tell_most_are_chosen(
    lesion: list[int], overlap: list[int], predicted: list[int], expected: dict[str, int]
) -> None:
    assert slices_to_show(np.array(lesion), np.array(overlap), np.array(predicted)) == expected


def marked(*rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows])


def test_the_truth_is_outlined_from_outside_and_the_prediction_from_inside() -> None:
    lesion = marked(
        ".......",
        ".###...",
        ".###...",
        ".####..",
        ".......",
    )
    outside, inside = outlines(lesion, lesion)
    # Neighbours by side only: no corners.
    assert np.array_equal(
        outside,
        marked(
            ".###...",
            "#...#..",
            "#...#..",
            "#....#.",
            ".####..",
        ),
    )
    # (2, 2) alone has lesion on all four sides; (2, 3) and (3, 3) have none to the right
    # and below.
    assert np.array_equal(
        inside,
        marked(
            ".......",
            ".###...",
            ".#.#...",
            ".####..",
            ".......",
        ),
    )


def test_a_lesion_that_leaves_the_picture_has_no_line_at_its_edge() -> None:
    outside, inside = outlines(marked("##.", "##."), marked("###", "###"))
    assert np.array_equal(outside, marked("..#", "..#"))
    assert not inside.any()


def test_one_voxel_is_outlined_by_itself() -> None:
    outside, inside = outlines(marked("...", ".#.", "..."), marked("...", ".#.", "..."))
    assert np.array_equal(outside, marked(".#.", "#.#", ".#."))
    assert np.array_equal(inside, marked("...", ".#.", "..."))


def seen(height: int, width: int, channels: int = 1) -> SeenSlice:
    """A slice full of brain; truth in the last voxel, prediction in the first."""
    truth = np.zeros((height, width), dtype=bool)
    prediction = truth.copy()
    truth[-1, -1], prediction[0, 0] = True, True
    image = np.random.default_rng(0).normal(size=(channels, height, width)).astype(np.float32)
    return SeenSlice(case="7", index=3, image=image, truth=truth, prediction=prediction)


def places(picture: np.ndarray, colour: tuple[int, int, int], top: int) -> np.ndarray:
    """Rows from the panels' top, and columns, of the pixels of a colour."""
    return np.argwhere((picture == colour).all(axis=-1)[top:])


def test_slices_stand_upright_with_the_patients_right_on_the_left() -> None:
    # 4 x 6 pixels, 208 // 6 = 34 times as large: upright 204 rows, 136 columns in a picture
    # of at least 330. Text of 330 // 34 = 9 pixels, two lines of round(1.4 * 9) = 13.
    picture = draw_picture(seen(4, 6), ("FLAIR",), (1.0, 1.0), left_side="R")
    assert picture.shape == (26 + 204, 330, 3) and picture.dtype == np.uint8
    # The last voxel lies right, front or above: shown in the upper left corner. Its outline
    # from outside is a line of 34 pixels below it and one to its right.
    truth = places(picture, TRUTH_COLOUR, 26)
    assert {tuple(place) for place in truth[truth[:, 0] == 34]} == {(34, x) for x in range(34)}
    assert {tuple(place) for place in truth[truth[:, 1] == 34]} == {(y, 34) for y in range(34)}
    # The first voxel: the lower right corner, from row 204 - 34 and column 136 - 34 on.
    prediction = places(picture, PREDICTION_COLOUR, 26)
    assert prediction.min(axis=0).tolist() == [170, 102]
    assert prediction.max(axis=0).tolist() == [203, 135]


def test_pixels_are_drawn_as_large_as_they_are() -> None:
    # 4 x 6 pixels of 1 x 2 mm: 12 mm the longer way, 208 // 12 = 17 pixels a mm.
    picture = draw_picture(seen(4, 6), ("FLAIR",), (1.0, 2.0), left_side="R")
    assert picture.shape == (26 + 12 * 17, 330, 3)
    # Upright, the first voxel is 34 rows high and 17 columns wide.
    prediction = places(picture, PREDICTION_COLOUR, 26)
    assert prediction.min(axis=0).tolist() == [204 - 34, 4 * 17 - 17]


def test_every_sequence_has_a_panel() -> None:
    # Two panels of 136 columns, and 4 between them.
    picture = draw_picture(seen(4, 6, channels=3), ("T1", "T2", "DWI"), (1.0, 1.0), left_side="A")
    # 3 * 140 - 4 = 416; text of 416 // 34 = 12, lines of round(16.8) = 17.
    assert picture.shape == (34 + 204, 416, 3)
    columns = places(picture, PREDICTION_COLOUR, 34)[:, 1]
    assert {columns[columns // 140 == panel].min() for panel in range(3)} == {102, 242, 382}


def test_a_slice_of_nothing_can_be_drawn() -> None:
    nothing = np.zeros((4, 6), dtype=bool)
    image = np.zeros((1, 4, 6), dtype=np.float32)
    empty = SeenSlice(case="7", index=3, image=image, truth=nothing, prediction=nothing)
    assert draw_picture(empty, ("T1",), (1.0, 1.0), left_side="R").shape == (230, 330, 3)
    assert empty.caption == "case 7, slice 3: no lesion, 0 false positives"


def test_captions_say_what_is_seen() -> None:
    truth = marked("##..", "....")
    half = SeenSlice(
        case="7",
        index=3,
        image=np.ones((1, 2, 4), dtype=np.float32),
        truth=truth,
        prediction=marked(".##.", "...."),
    )
    # 2 * 1 / (2 + 2).
    assert half.caption == "case 7, slice 3: Dice 0.50, 1 false positives"


def test_a_training_shows_slices_as_its_validation_counted_them(
    toy_slices: Callable[..., SliceSet],
) -> None:
    config = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    slices = toy_slices(cases=2, slices=6)
    training = Training(network, slices, slices, config, epochs=2)
    assert training.seen_slices() == {}
    next(training.run())
    before = torch.get_rng_state()
    shown = training.seen_slices()
    assert torch.equal(torch.get_rng_state(), before)
    assert shown.keys() >= {"best", "worst"}
    for name in ("best", "worst"):
        place = {"case0": 0, "case1": 6}[shown[name].case] + shown[name].index
        images, masks = slices.gather(np.array([place]), "cpu")
        assert np.array_equal(shown[name].image, images[0].numpy())
        assert np.array_equal(shown[name].truth, masks[0, 0].numpy() > 0)
        assert shown[name].truth.any()
