"""One member over one volume, computed with PyTorch and by plain functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import Predictor, predict_volume
from strokeseg.ensemble.torch_predictor import as_predictor
from strokeseg.imaging import slices
from strokeseg.records.config import NetworkConfig
from strokeseg.records.member import MemberRecord
from strokeseg.training.checkpoint import Member
from strokeseg.training.network import build_network


def _predictor(
    axis: str,
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    slice_size: tuple[int, int] | None = None,
) -> Predictor:
    return Predictor(name="plain", axis=axis, slice_size=slice_size, predict=predict)


def _volume() -> np.ndarray:
    """Two sequences of (X, Y, Z) = (20, 36, 24), with no brain in the first rows of X."""
    volume = np.random.default_rng(0).normal(size=(2, 20, 36, 24)).astype(np.float32)
    volume[:, :3] = 0
    return volume


@pytest.mark.parametrize(
    ("axis", "size"), [("sagittal", (64, 32)), ("coronal", (32, 32)), ("axial", (32, 64))]
)
def test_a_volume_is_predicted_slice_by_slice(
    axis: str, size: tuple[int, int], member_record: Callable[..., MemberRecord]
) -> None:
    volume = _volume()
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2).eval()
    predictor = as_predictor("member", Member(network=network, record=member_record(axis)))
    given = predict_volume(predictor, volume, batch_size=5)
    assert given.shape == (20, 36, 24)
    assert given.dtype == np.float32
    by_hand = np.zeros((20, 36, 24), dtype=np.float32)
    position = {"sagittal": 0, "coronal": 1, "axial": 2}[axis]
    for index in range(volume.shape[1 + position]):
        one = np.take(volume, index, axis=1 + position).astype(np.float16).astype(np.float32)
        if not one.any():
            continue
        height, width = one.shape[1:]
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        padded = np.zeros((1, 2, *size), dtype=np.float32)
        padded[0, :, top : top + height, left : left + width] = one
        with torch.inference_mode():
            probability = torch.sigmoid(network(torch.from_numpy(padded)))[0, 0].numpy()
        place = [slice(None)] * 3
        place[position] = index
        by_hand[tuple(place)] = probability[top : top + height, left : left + width]
    # Outside the brain there is no lesion, whatever the network says.
    by_hand[:3] = 0
    np.testing.assert_allclose(given, by_hand, atol=1e-5)


def test_slices_are_padded_to_the_size_of_training_where_they_fit() -> None:
    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.add(images.shape[2:])
        return images[:, 0]

    for slice_size, expected in [
        (None, (32, 64)),
        ((96, 96), (96, 96)),
        ((32, 32), (32, 64)),
    ]:
        seen: set[tuple[int, ...]] = set()
        predict_volume(_predictor("axial", predict, slice_size), _volume())
        assert seen == {expected}


def test_slices_without_brain_are_lesion_free_without_a_prediction() -> None:
    predictor = _predictor("sagittal", lambda images: np.full_like(images[:, 0], 0.95))
    probability = predict_volume(predictor, _volume())
    assert (probability[:3] == 0).all()
    assert (probability[3:] > 0.9).all()


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="of plain must be finite"):
        predict_volume(_predictor("axial", lambda images: images[:, 0] * np.nan), _volume())


def test_what_is_cut_and_joined_lies_where_it_was() -> None:
    volume = _volume()
    expected = volume[0].astype(np.float16).astype(np.float32)
    for axis in slices.AXES:
        given = predict_volume(_predictor(axis, lambda images: images[:, 0]), volume)
        np.testing.assert_array_equal(given, expected)
