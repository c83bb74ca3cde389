"""Distances between borders: derived by hand, and as other libraries find them.

MONAI is asked each time. What medpy 0.5.2, SimpleITK 2.5.7 and surface-distance 0.1 say of the four
pairs of `_random_pair` was computed once, with their defaults and `SPACING_MM`, and is kept here.
"""

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
)
from scipy import ndimage

from strokeseg.imaging import surfaces
from strokeseg.imaging.lesions import count_lesions
from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.surfaces import surface_distances, union_box

SPACING_MM = (1.0, 2.5, 4.0)


def box(*bounds, shape=(12, 12, 12)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def test_a_shifted_cube_on_an_anisotropic_grid():
    # A cube of 4^3 voxels has 4^3 - 2^3 = 56 border voxels. Shifted by one along x, at 3 x 2 x 5
    # mm: its first face (16) lies 3 mm from the other's; its last face's inner 4 voxels lie inside
    # the other, 2 mm (along y) from its sides; the other 36 are border of both.
    found = surface_distances(
        box((1, 5), (1, 5), (1, 5)), box((2, 6), (1, 5), (1, 5)), spacing_mm=(3.0, 2.0, 5.0)
    )
    assert found.hd_mm == 3
    assert found.hd95_mm == 3
    assert found.assd_mm == pytest.approx((16 * 3 + 4 * 2) / 56)
    assert found.mean_of_means_mm == pytest.approx(found.assd_mm)


def test_two_voxels_are_as_far_apart_as_their_centres():
    # 3 voxels of 1 mm, 4 of 2 mm and 2 of 6 mm: sqrt(9 + 64 + 144) mm.
    found = surface_distances(
        box((0, 1), (0, 1), (0, 1)), box((3, 4), (4, 5), (2, 3)), spacing_mm=(1.0, 2.0, 6.0)
    )
    distances = (found.hd_mm, found.hd95_mm, found.assd_mm)
    assert distances == pytest.approx([np.sqrt(217)] * 3)


def test_both_directions_are_pooled_where_others_take_the_larger():
    # A bar of 10 voxels, and the same bar with one voxel 20 mm away. Pooled: 20 distances of 0 and
    # one of 20, whose 95th percentile is the 20th of 21, 0. Of the 11 of the second bar alone it
    # lies half way between the 10th, 0, and the 11th, 20: 10 mm.
    bar = box((0, 10), (0, 1), (0, 1))
    more = bar | box((0, 1), (10, 11), (0, 1))
    found = surface_distances(bar, more, spacing_mm=(1.0, 2.0, 1.0))
    assert (found.hd95_mm, found.hd_mm) == (0, 20)
    assert found.assd_mm == pytest.approx(20 / 21)
    assert found.mean_of_means_mm == pytest.approx(20 / 11 / 2)
    theirs = compute_hausdorff_distance(*_batches(more, bar), percentile=95, spacing=(1, 2, 1))
    assert theirs.item() == pytest.approx(10)


def test_the_edge_of_the_volume_is_outside():
    # Without the edge as border, the full volume would have none. Its centre is 1 voxel inside.
    found = surface_distances(
        box((0, 3), (0, 3), (0, 3), shape=(3, 3, 3)),
        box((1, 2), (1, 2), (1, 2), shape=(3, 3, 3)),
        spacing_mm=(2.0, 2.0, 2.0),
    )
    assert found.hd_mm == pytest.approx(np.sqrt(12))


@pytest.mark.parametrize("share", [0.0, np.inf])
def test_tree_and_distance_transform_find_the_same(monkeypatch, share):
    truth, prediction = _random_pair(5)
    expected = surface_distances(truth, prediction, SPACING_MM)
    monkeypatch.setattr(surfaces, "_TREE_BELOW_SHARE", share)
    found = surface_distances(truth, prediction, SPACING_MM)
    assert found.hd_mm == pytest.approx(expected.hd_mm, abs=1e-9)
    assert found.hd95_mm == pytest.approx(expected.hd95_mm, abs=1e-9)
    assert found.assd_mm == pytest.approx(expected.assd_mm, abs=1e-9)


def test_the_order_of_the_voxels_in_memory_changes_nothing():
    pair = _random_pair(6)
    ordered = surface_distances(*(np.asfortranarray(mask) for mask in pair), SPACING_MM)
    assert ordered == surface_distances(*pair, SPACING_MM)


def test_an_empty_mask_has_no_surface():
    with pytest.raises(ValueError, match="not empty"):
        surface_distances(box((0, 1), (0, 1), (0, 1)), box((0, 0), (0, 0), (0, 0)), SPACING_MM)


def test_the_box_holds_both_masks_and_no_more():
    first, second = box((1, 3), (2, 5), (4, 5)), box((2, 8), (4, 6), (0, 1))
    assert union_box(first, second) == (slice(1, 8), slice(2, 6), slice(0, 5))
    nothing = box((0, 0), (0, 0), (0, 0))
    assert first[union_box(nothing, nothing)].shape == first.shape


def _random_pair(seed):
    """Blobs that overlap in part, some of them at the volume's edge."""
    generator = np.random.default_rng(seed)
    field, other = (
        ndimage.gaussian_filter(generator.standard_normal((24, 20, 16)), 2) for _ in range(2)
    )
    return field > field.std(), field + 0.5 * other > field.std()


def _batches(*masks):
    return [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in masks]


@pytest.fixture(params=range(4), ids="seed {}".format)
def pair(request):
    return _random_pair(request.param)


# By seed, from medpy.metric.binary: dc, recall, precision, hd, hd95, and asd of either direction.
_MEDPY = {
    0: (0.66720648, 0.84081633, 0.55302013, 17.72004515, 10.24695077, 2.72797958, 0.77503445),
    1: (0.68145161, 0.73239437, 0.63713478, 16.03121954, 5.0, 1.21774733, 1.39917715),
    2: (0.72196796, 0.84811828, 0.62848606, 16.03121954, 6.0, 1.86718545, 0.64312760),
    3: (0.71194567, 0.75572519, 0.67296073, 14.22146265, 4.71699057, 1.10104087, 0.84113081),
}
# From SimpleITK's ConnectedComponentImageFilter, fully connected: lesions of truth and prediction.
_ITK_LESIONS = {0: (6, 5), 1: (12, 13), 2: (6, 5), 3: (9, 8)}
# From surface_distance.compute_robust_hausdorff, at 100 percent.
_LARGEST_MM = {0: 16.77050983, 1: 13.64734406, 2: 16.0, 3: 14.22146265}


@pytest.mark.parametrize("seed", _MEDPY)
def test_medpy_found_the_same(seed):
    truth, prediction = _random_pair(seed)
    ours = score_masks(truth, prediction, SPACING_MM)
    *theirs, there, back = _MEDPY[seed]
    found = (ours.dice, ours.sensitivity, ours.precision, ours.hd_mm, ours.hd95_mm)
    assert found == pytest.approx(theirs, abs=1e-8)
    as_in_2015 = score_masks(truth, prediction, SPACING_MM, policy="isles15")
    assert as_in_2015.assd_mm == pytest.approx((there + back) / 2, abs=1e-8)


@pytest.mark.parametrize("seed", _ITK_LESIONS)
def test_simpleitk_counted_the_same_lesions(seed):
    counts = count_lesions(*_random_pair(seed))
    assert (counts.true, counts.predicted) == _ITK_LESIONS[seed]


@pytest.mark.parametrize("seed", _LARGEST_MM)
def test_surface_distance_found_the_same_largest_distance_to_a_voxel(seed):
    # It measures between the corners of voxels: a voxel's diagonal off at most.
    ours = surface_distances(*_random_pair(seed), SPACING_MM)
    assert abs(ours.hd_mm - _LARGEST_MM[seed]) <= np.linalg.norm(SPACING_MM)


def test_the_largest_distance_of_boxes_apart_is_between_their_far_corners():
    # From voxel (8, 8, 8) of the second to (2, 3, 1) of the first: 6 x 1, 5 x 2.5 and 7 x 4 mm. The
    # other way it is less: from (0, 1, 0) to (6, 7, 5), 6 x 1, 6 x 2.5 and 5 x 4 mm.
    first, second = box((0, 3), (1, 4), (0, 2)), box((6, 9), (7, 9), (5, 9))
    found = surface_distances(first, second, SPACING_MM)
    assert found.hd_mm == pytest.approx(np.sqrt(6**2 + 12.5**2 + 28**2))


def test_monai_agrees_but_takes_the_larger_hd95(pair):
    truth, prediction = pair
    ours = score_masks(truth, prediction, SPACING_MM)
    predicted, true = _batches(prediction, truth)
    largest, percentile = (
        compute_hausdorff_distance(predicted, true, percentile=of, spacing=SPACING_MM).item()
        for of in (None, 95)
    )
    average = compute_average_surface_distance(predicted, true, symmetric=True, spacing=SPACING_MM)
    assert ours.dice == pytest.approx(compute_dice(predicted, true).item(), abs=1e-6)
    assert ours.hd_mm == pytest.approx(largest, abs=1e-5)
    assert ours.assd_mm == pytest.approx(average.item(), abs=1e-5)
    assert ours.hd95_mm <= percentile + 1e-5
