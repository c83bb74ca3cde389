"""Distances between borders: derived by hand, and as other libraries find them."""

import numpy as np
import pytest
import SimpleITK
import surface_distance
import torch
from medpy.metric import binary as medpy
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


def test_medpy_agrees(pair):
    truth, prediction = pair
    ours = score_masks(truth, prediction, SPACING_MM)
    theirs = {
        "dice": medpy.dc(prediction, truth),
        "sensitivity": medpy.recall(prediction, truth),
        "precision": medpy.precision(prediction, truth),
        "hd_mm": medpy.hd(prediction, truth, SPACING_MM),
        "hd95_mm": medpy.hd95(prediction, truth, SPACING_MM),
    }
    assert {name: getattr(ours, name) for name in theirs} == pytest.approx(theirs)
    means = [
        medpy.asd(prediction, truth, SPACING_MM),
        medpy.asd(truth, prediction, SPACING_MM),
    ]
    as_in_2015 = score_masks(truth, prediction, SPACING_MM, policy="isles15")
    assert as_in_2015.assd_mm == pytest.approx(np.mean(means))


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


def test_simpleitk_agrees_on_overlap_and_lesions(pair):
    truth, prediction = pair
    ours = score_masks(truth, prediction, SPACING_MM)
    true, predicted = (SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in pair)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(predicted, true)
    assert ours.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert ours.sensitivity == pytest.approx(1 - overlap.GetFalseNegativeError())
    assert ours.precision == pytest.approx(1 - overlap.GetFalseDiscoveryRate())
    components = SimpleITK.ConnectedComponentImageFilter()
    components.SetFullyConnected(True)
    counts = count_lesions(truth, prediction)
    for image, count in ((true, counts.true), (predicted, counts.predicted)):
        components.Execute(image)
        assert components.GetObjectCount() == count


def test_simpleitk_agrees_on_the_hausdorff_distance_of_masks_apart():
    # Its filter measures from every voxel, not from borders: the same only where masks lie apart.
    first, second = box((0, 3), (1, 4), (0, 2)), box((6, 9), (7, 9), (5, 9))
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8).T) for mask in (first, second)]
    for image in images:
        image.SetSpacing(SPACING_MM)
    distance = SimpleITK.HausdorffDistanceImageFilter()
    distance.Execute(*images)
    ours = surface_distances(first, second, SPACING_MM)
    assert ours.hd_mm == pytest.approx(distance.GetHausdorffDistance())


def test_surface_distance_agrees_to_a_voxel(pair):
    # It measures between the corners of voxels, weighs by area, and takes the larger direction's
    # percentile: only the largest distance means the same, and lies a voxel's diagonal off at most.
    truth, prediction = pair
    ours = score_masks(truth, prediction, SPACING_MM)
    distances = surface_distance.compute_surface_distances(truth, prediction, SPACING_MM)
    largest = surface_distance.compute_robust_hausdorff(distances, 100)
    assert abs(ours.hd_mm - largest) <= np.linalg.norm(SPACING_MM)
    assert ours.dice == pytest.approx(surface_distance.compute_dice_coefficient(truth, prediction))
