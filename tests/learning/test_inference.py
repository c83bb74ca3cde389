"""One network over one volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from strokeseg.imaging import slices
from strokeseg.learning.inference import predict_volume
from strokeseg.learning.networks import build_network


def _volume() -> np.ndarray:
    """Two sequences of (X, Y, Z) = (20, 36, 24), with no brain in the first rows of X."""
    volume = np.random.default_rng(0).normal(size=(2, 20, 36, 24)).astype(np.float32)
    volume[:, :3] = 0
    return volume


@pytest.mark.parametrize(
    ("axis", "size"), [("sagittal", (64, 32)), ("coronal", (32, 32)), ("axial", (32, 64))]
)
def test_a_volume_is_predicted_slice_by_slice(axis: str, size: tuple[int, int]) -> None:
    volume = _volume()
    network = build_network(encoder="resnet18", encoder_depth=3, channels=2).eval()
    given = predict_volume(network, volume, axis, batch_size=5)
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
    class Size(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            seen.add(tuple(given.shape[2:]))
            return given[:, :1]

    for slice_size, expected in [
        (None, (32, 64)),
        ((96, 96), (96, 96)),
        ((32, 32), (32, 64)),
    ]:
        seen: set[tuple[int, ...]] = set()
        predict_volume(Size(), _volume(), "axial", slice_size=slice_size)
        assert seen == {expected}


def test_slices_without_brain_are_lesion_free_without_asking() -> None:
    class Everywhere(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return torch.full_like(given[:, :1], 5.0)

    probability = predict_volume(Everywhere(), _volume(), "sagittal")
    assert (probability[:3] == 0).all()
    assert (probability[3:] > 0.9).all()


def test_numbers_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given[:, :1] * float("nan")

    with pytest.raises(ValueError, match="must be finite"):
        predict_volume(Broken(), _volume(), "axial")


def test_what_is_cut_and_joined_lies_where_it_was() -> None:
    class Copy(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given[:, :1]

    volume = _volume()
    expected = 1 / (1 + np.exp(-volume[0].astype(np.float16).astype(np.float32)))
    expected[:3] = 0.0
    for axis in slices.AXES:
        probability = predict_volume(Copy(), volume, axis)
        np.testing.assert_allclose(probability[3:], expected[3:], atol=1e-6)
