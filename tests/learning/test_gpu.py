"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from strokeseg.config import TrialConfig
from strokeseg.learning.augment import augment
from strokeseg.learning.networks import build_network
from strokeseg.learning.slice_set import SliceSet
from strokeseg.learning.training import EpochResult, Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

_CONFIG = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(encoder="resnet18", encoder_depth=3, channels=2)


def _train(slices: SliceSet, device: str, precision: torch.dtype, epochs: int = 1) -> EpochResult:
    # The GPU's augmentation has draws of its own.
    config = _CONFIG.model_copy(update={"augmentation": 0.0})
    training = Training(
        _network(), slices, slices, config, epochs=epochs, device=device, precision=precision
    )
    return list(training.run())[-1]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_learns_what_a_cpu_learns(
    toy_slices: Callable[..., SliceSet], precision: torch.dtype
) -> None:
    slices = toy_slices()
    there = _train(slices, "cuda", precision)
    here = _train(slices, "cpu", torch.float32)
    assert there.losses == pytest.approx(here.losses, rel=0.02)
    assert _train(slices, "cuda", precision, epochs=10).dice > 0.7


def test_augmentation_does_to_slices_on_a_gpu_what_it_does_on_a_cpu() -> None:
    # Draws differ between devices, so many slices' statistics are compared.
    images = torch.zeros(256, 2, 64, 64)
    images[:, :, 12:52, 12:52] = torch.randn(256, 2, 40, 40, generator=torch.manual_seed(0))
    masks = torch.zeros(256, 1, 64, 64)
    masks[:, :, 20:30, 24:40] = 1
    found = {}
    for device in ("cpu", "cuda"):
        generator = torch.Generator(device).manual_seed(1)
        changed, moved = augment(images.to(device), masks.to(device), 0.7, generator)
        assert set(moved.unique().tolist()) == {0.0, 1.0}
        rows = moved.sum(dim=(1, 2, 3))
        inside = changed[(changed != 0).all(dim=1, keepdim=True).expand_as(changed)]
        found[device] = (float(rows.mean()), float(rows.std()), float(inside.std()))
    assert found["cuda"] == pytest.approx(found["cpu"], rel=0.1)


def test_an_interrupted_training_goes_on_from_its_state(
    toy_slices: Callable[..., SliceSet],
) -> None:
    slices = toy_slices()

    def fresh() -> Training:
        return Training(_network(), slices, slices, _CONFIG, epochs=3, device="cuda")

    undisturbed = list(fresh().run())
    first = fresh()
    next(first.run())
    second = fresh()
    second.restore(first.state())
    (two, three) = second.run()
    assert (two.epoch, three.epoch) == (2, 3)
    # Kernels of a GPU add in no fixed order.
    assert three.losses == pytest.approx(undisturbed[2].losses, rel=0.05)
