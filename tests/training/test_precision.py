"""Reduced precision, tried on the CPU, which can compute in float16 when it is set to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.checkpoint import load_state, save_state
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.precision import Stepper, cpu_flags, reduced_type
from strokeseg.training.slice_set import SliceSet

CONFIG = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)
CPU = torch.device("cpu")


class Loud(nn.Module):
    """Multiplies its input by 10^5 and divides again: too much for float16, not for bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
        self.up, self.down = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        for layer, factor in ((self.up, 1e5), (self.down, 1e-5)):
            layer.weight.data = factor * torch.eye(2)[..., None, None]
            layer.weight.requires_grad = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.down(self.up(images)))


def _training(
    network: nn.Module, slices: SliceSet, reduced: torch.dtype | None, epochs: int = 2
) -> Training:
    return Training(network, slices, slices, CONFIG, epochs=epochs, precision=reduced)


def _without_times(result: EpochResult) -> EpochResult:
    return replace(result, seconds=0.0, train_seconds=0.0, data_seconds=0.0, memory_gb=0.0)


def test_cpus_compute_in_16_bits_where_they_can_multiply_them() -> None:
    able = {"avx512_bf16", "amx_bf16"} & cpu_flags()
    plain, grouped = nn.Conv2d(2, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 3, groups=2))
    assert reduced_type(CPU, plain) is (torch.bfloat16 if able else None)
    assert reduced_type(CPU, grouped) is None


@pytest.mark.parametrize("reduced", [torch.float16, torch.bfloat16])
def test_a_network_learns_in_16_bits(
    toy_slices: Callable[..., SliceSet], reduced: torch.dtype
) -> None:
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    training = _training(network, toy_slices(), reduced, epochs=3)
    results = list(training.run())
    assert results[-1].losses["total"] < results[0].losses["total"]
    assert training.state()["precision"]["reduced"]
    assert all(weight.dtype == torch.float32 for weight in network.parameters())


def test_what_overflows_is_repeated_in_float32_as_if_it_had_never_been_tried(
    toy_slices: Callable[..., SliceSet], caplog: pytest.LogCaptureFixture
) -> None:
    expected = list(_training(Loud(), toy_slices(), torch.float32).run())
    training = _training(Loud(), toy_slices(), torch.float16)
    results = list(training.run())
    assert [_without_times(result) for result in results] == [
        _without_times(result) for result in expected
    ]
    assert not training.state()["precision"]["reduced"]
    assert "float32 from here on" in caplog.text


def test_a_resumed_training_keeps_its_precision(
    toy_slices: Callable[..., SliceSet], tmp_path: Path
) -> None:
    for network in (
        Loud,
        lambda: build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2),
    ):
        expected = list(_training(network(), toy_slices(), torch.float16, epochs=2).run())
        first = _training(network(), toy_slices(), torch.float16, epochs=2)
        next(first.run())
        save_state(tmp_path / "state.pt", first.state())
        second = _training(network(), toy_slices(), torch.float16, epochs=2)
        second.restore(load_state(tmp_path / "state.pt"))
        results = [_without_times(result) for result in second.run()]
        assert results == [_without_times(result) for result in expected[1:]]


def test_a_training_in_bfloat16_goes_on_in_float16_where_that_is_what_there_is() -> None:
    weight = nn.Parameter(torch.ones(1))
    state = Stepper(torch.optim.AdamW([weight], lr=0.1), CPU, torch.bfloat16).state()
    stepper = Stepper(torch.optim.AdamW([weight], lr=0.1), CPU, torch.float16)
    stepper.restore(state)
    stepper.step(weight.sum(), [weight])
    assert stepper.state()["scaler"]["scale"] == 2.0**16
    assert float(weight.detach()) < 1


def test_gradients_that_overflow_even_unscaled_are_reported() -> None:
    weight = nn.Parameter(torch.ones(1))
    stepper = Stepper(torch.optim.AdamW([weight], lr=0.1), CPU, torch.float16)
    for _ in range(17):
        stepper.step((weight * torch.inf).sum(), [weight])
    # From 2^16, halved at every overflow: 2^-1 after 17 of them; nothing was learned.
    assert stepper.overflows()
    assert weight.item() == 1
