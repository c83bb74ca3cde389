"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.augmentation import augment
from strokeseg.training.cuda_graph import Recording
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.slice_set import SliceSet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

_CONFIG = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)


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


def _weights(training: Training) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in training.network.parameters()])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_recorded_steps_learn_what_live_ones_learn(
    toy_slices: Callable[..., SliceSet], precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = toy_slices()

    def trained() -> tuple[Training, EpochResult]:
        # Their last batch is smaller than the others.
        training = Training(
            *(_network(), slices, slices, _CONFIG),
            epochs=2,
            slices_per_epoch=52,
            device="cuda",
            precision=precision,
        )
        return training, list(training.run())[-1]

    played = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (played.append(graph), replay(graph))
    )
    recorded, there = trained()
    assert len(played) == 2 * 6 - 3
    monkeypatch.setattr(Recording, "take", lambda _, step, images, masks: step(images, masks))
    live, here = trained()
    assert len(played) == 2 * 6 - 3
    assert there.losses == pytest.approx(here.losses, rel=0.02)
    assert there.learning_rate == here.learning_rate
    moved = (
        _weights(live) - torch.cat([w.flatten() for w in _network().cuda().parameters()])
    ).norm()
    assert (_weights(recorded) - _weights(live)).norm() < 0.1 * moved


def test_a_network_drops_out_again_in_every_recorded_step(
    toy_slices: Callable[..., SliceSet],
) -> None:
    network = _network()
    seen: list[torch.Tensor] = []

    class Noted(nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            dropped = nn.functional.dropout(torch.ones(64, device=logits.device), training=True)
            if not seen:
                seen.append(torch.zeros(2, 64, device=logits.device))
            seen[0].copy_(torch.stack([seen[0][1], dropped]))
            return logits

    slices = toy_slices()
    config = _CONFIG.model_copy(update={"augmentation": 0.0})
    training = Training(
        *(nn.Sequential(network, Noted()), slices, slices, config),
        epochs=1,
        slices_per_epoch=64,
        device="cuda",
    )
    next(training.run())
    assert not torch.equal(*seen[0])


def test_a_network_that_waits_for_the_gpu_is_trained_all_the_same(
    toy_slices: Callable[..., SliceSet], caplog: pytest.LogCaptureFixture
) -> None:
    class Waiting(nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return logits * (2.0 if logits.mean().item() > 1e9 else 1.0)

    slices = toy_slices()
    training = Training(
        *(nn.Sequential(_network(), Waiting()), slices, slices, _CONFIG),
        epochs=10,
        slices_per_epoch=64,
        device="cuda",
    )
    assert list(training.run())[-1].dice > 0.7
    (warning,) = [record for record in caplog.records if "recorded" in record.message]
    assert warning.levelname == "WARNING"


def test_a_training_that_is_over_leaves_the_gpu_to_the_next_one(
    toy_slices: Callable[..., SliceSet],
) -> None:
    slices = toy_slices()
    held = []
    for _ in range(3):
        training = Training(
            *(_network(), slices, slices, _CONFIG), epochs=1, slices_per_epoch=64, device="cuda"
        )
        next(training.run())
        # As soon as nobody refers to it, not when garbage is looked for.
        del training
        held.append(torch.cuda.memory_allocated())
    # What libraries keep to work in is there from the first time on.
    assert held[2] - held[1] < 2**20


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
