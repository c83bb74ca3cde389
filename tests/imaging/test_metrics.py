"""Scores of masks whose overlap, distances and lesions can be counted by hand."""

from dataclasses import asdict

import numpy as np
import pytest

from strokeseg.imaging.metric_names import METRICS, POLICIES
from strokeseg.imaging.metrics import Scores, score_masks, volume_ml


def box(*bounds):
    mask = np.zeros((10, 10, 10), dtype=np.uint8)
    mask[tuple(slice(*bound) for bound in bounds)] = 1
    return mask


def test_shifted_cubes_on_an_anisotropic_grid():
    # Two cubes of 4^3 = 64 voxels, shifted by one along x: 3 * 4 * 4 = 48 voxels overlap.
    # The prediction has one more layer along z: 4 * 4 * 5 = 80 voxels. A voxel of
    # 1 x 2 x 5 mm is 0.01 ml.
    scores = score_masks(
        box((1, 5), (1, 5), (1, 5)), box((2, 6), (1, 5), (1, 6)), spacing_mm=(1.0, 2.0, 5.0)
    )
    assert scores.dice == pytest.approx(2 * 48 / (64 + 80))
    assert scores.sensitivity == pytest.approx(48 / 64)
    assert scores.precision == pytest.approx(48 / 80)
    assert scores.true_ml == pytest.approx(0.64)
    assert scores.predicted_ml == pytest.approx(0.80)
    assert scores.volume_difference_ml == pytest.approx(0.16)


NOTHING, CUBE = box((0, 0), (0, 0), (0, 0)), box((1, 5), (1, 5), (1, 5))


@pytest.mark.parametrize(
    ("truth", "prediction", "score", "difference_ml"),
    [
        (NOTHING, NOTHING, 1.0, 0.0),
        (CUBE, NOTHING, 0.0, 0.064),
        (NOTHING, CUBE, 0.0, 0.064),
        (CUBE, CUBE, 1.0, 0.0),
        (CUBE, box((5, 9), (5, 9), (5, 9)), 0.0, 0.0),
    ],
)
def test_empty_equal_and_disjoint_masks(truth, prediction, score, difference_ml):
    scores = score_masks(truth, prediction, spacing_mm=(1.0, 1.0, 1.0))
    assert (scores.dice, scores.sensitivity, scores.precision) == (score, score, score)
    assert scores.volume_difference_ml == pytest.approx(difference_ml)


def test_bool_and_integer_masks_score_alike():
    assert score_masks(CUBE.astype(bool), CUBE.astype(np.int64), (1, 1, 1)).dice == 1.0


@pytest.mark.parametrize("prediction", [CUBE * 255, CUBE * 0.5, CUBE.astype(np.float32)])
def test_anything_but_a_mask_is_refused(prediction):
    with pytest.raises(ValueError, match="0 and 1"):
        score_masks(CUBE, prediction, (1.0, 1.0, 1.0))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="share a shape"):
        score_masks(CUBE, CUBE[1:], (1.0, 1.0, 1.0))


def test_volume_is_voxels_times_voxel_size():
    # 64 voxels of 0.5 x 0.5 x 4 mm = 64 mm3.
    assert volume_ml(CUBE, (0.5, 0.5, 4.0)) == pytest.approx(0.064)


# The diagonal of 10 x 10 x 10 voxels of 1 x 2 x 2 mm is sqrt(100 + 400 + 400) = 30 mm.
GRID_MM, DIAGONAL_MM = (1.0, 2.0, 2.0), 30.0
RATIOS = ("dice", "sensitivity", "precision", "lesion_f1")
DISTANCES = ("hd95_mm", "hd_mm", "assd_mm")


@pytest.mark.parametrize(
    ("policy", "truth", "prediction", "ratios", "distance_mm"),
    [
        ("isles22", NOTHING, NOTHING, (1, 1, 1, 1), 0),
        ("isles22", CUBE, NOTHING, (0, 0, 0, 0), DIAGONAL_MM),
        ("isles22", NOTHING, CUBE, (0, 0, 0, 0), DIAGONAL_MM),
        ("isles15", NOTHING, NOTHING, (0, 0, 0, 0), None),
        ("isles15", CUBE, NOTHING, (0, 0, 0, 0), None),
        ("isles15", NOTHING, CUBE, (0, 0, 0, 0), None),
        ("nnunet", NOTHING, NOTHING, (None, None, None, None), None),
        ("nnunet", CUBE, NOTHING, (0, 0, None, 0), None),
        ("nnunet", NOTHING, CUBE, (0, None, 0, 0), None),
        *((policy, CUBE, CUBE, (1, 1, 1, 1), 0) for policy in POLICIES),
    ],
)
def test_each_policy_has_its_rule_for_empty_masks(policy, truth, prediction, ratios, distance_mm):
    scores = asdict(score_masks(truth, prediction, GRID_MM, policy=policy))
    assert tuple(scores[name] for name in RATIOS) == ratios
    assert [scores[name] for name in DISTANCES] == [distance_mm] * len(DISTANCES)
    assert scores["missed"] == int(truth.any() != prediction.any())


def test_masks_that_do_not_overlap_have_no_distances_by_the_rules_of_isles_2015():
    far = box((5, 9), (5, 9), (5, 9))
    assert score_masks(CUBE, far, GRID_MM, policy="isles15").hd95_mm is None
    assert (score_masks(CUBE, far, GRID_MM, policy="isles22").hd95_mm or 0) > 0


def test_only_the_averaged_distance_differs_between_policies_where_both_masks_hold_something():
    # A bar of 9 voxels along x, and the same bar with a voxel 5 * 2 mm beside its end: 9 distances
    # of 0 there, and 9 of 0 and one of 10 mm back. Pooled: 10 / 19; of the means: (0 + 1) / 2.
    bar = box((0, 9), (0, 1), (0, 1))
    more = bar | box((0, 1), (5, 6), (0, 1))
    by_policy = {
        policy: asdict(score_masks(bar, more, GRID_MM, policy=policy)) for policy in POLICIES
    }
    averaged = {policy: scores.pop("assd_mm") for policy, scores in by_policy.items()}
    assert by_policy["isles22"] == by_policy["isles15"] == by_policy["nnunet"]
    assert averaged["isles22"] == averaged["nnunet"] == pytest.approx(10 / 19)
    assert averaged["isles15"] == pytest.approx(0.5)


def test_lesions_count_as_found_by_a_single_voxel():
    # Three true lesions; the prediction touches two of them with one bar, and adds two of its own:
    # TP 2, FN 1, FP 2, F1 = 2 / (2 + 3 / 2) = 4 / 7.
    truth = box((0, 1), (0, 1), (0, 1)) | box((4, 5), (0, 1), (0, 1)) | box((0, 3), (9, 10), (0, 3))
    prediction = box((0, 5), (0, 1), (0, 1)) | box((9, 10), (9, 10), (9, 10))
    prediction |= box((9, 10), (0, 1), (9, 10))
    scores = score_masks(truth, prediction, GRID_MM)
    assert scores.lesion_f1 == pytest.approx(4 / 7)
    assert (scores.true_lesions, scores.predicted_lesions) == (3, 3)
    assert (scores.missed_lesions, scores.false_lesions) == (1, 2)
    assert scores.lesion_count_difference == 0


def test_accuracy_stands_beside_that_of_an_empty_mask():
    # 64 of 1000 voxels are lesion; a prediction of 32 of them and of 8 others is wrong in 40.
    scores = score_masks(CUBE, box((1, 3), (1, 5), (1, 5)) | box((6, 8), (6, 8), (6, 8)), GRID_MM)
    assert scores.accuracy == pytest.approx(0.960)
    assert scores.accuracy_empty == pytest.approx(0.936)


def test_scores_do_not_depend_on_the_order_of_the_voxels_in_memory():
    truth, prediction = CUBE, box((2, 6), (1, 5), (1, 6))
    ordered = score_masks(np.asfortranarray(truth), np.asfortranarray(prediction), GRID_MM)
    assert ordered == score_masks(truth, prediction, GRID_MM)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="isles22, isles15, nnunet"):
        score_masks(CUBE, CUBE, GRID_MM, policy="isles18")


def test_every_score_has_a_name_and_a_unit_that_its_field_tells():
    assert list(METRICS) == list(Scores.__dataclass_fields__)
    for field, name in METRICS.items():
        assert name.unit == next((unit for unit in ("mm", "ml") if field.endswith(f"_{unit}")), "")
        assert name.heading == (f"{name.title}, {name.unit}" if name.unit else name.title)
