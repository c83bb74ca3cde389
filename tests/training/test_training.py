"""The epoch loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from strokeseg.errors import UserError
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.checkpoint import load_state, save_state
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.schedule import rate_factor
from strokeseg.training.slice_set import SliceSet, slices_in_memory
from strokeseg.training.validation import TrialFailure, dice_by_case

_CONFIG = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)


def _training(slices: SliceSet, config: TrialConfig = _CONFIG, **settings: int) -> Training:
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    return Training(network, slices, slices, config, **({"epochs": 3} | settings))


def test_a_small_network_learns_bright_squares(toy_slices: Callable[..., SliceSet]) -> None:
    training = _training(toy_slices(), _CONFIG.model_copy(update={"augmentation": 0.1}), epochs=10)
    results = list(training.run())
    assert [result.epoch for result in results] == list(range(1, 11))
    assert results[-1].dice > 0.8
    assert results[-1].losses["total"] < results[0].losses["total"] / 2
    assert results[-1].losses.keys() == {"total", "dice", "cross_entropy"}
    assert results[0].slices == 24
    assert results[0].memory_gb > 0.1
    assert results[0].dice == pytest.approx(np.mean(list(results[0].case_dice.values())))
    assert results[0].seconds >= results[0].train_seconds >= results[0].data_seconds > 0


def test_a_resumed_run_equals_an_undisturbed_one(
    toy_slices: Callable[..., SliceSet], tmp_path: Path
) -> None:
    undisturbed = _training(toy_slices())
    expected = list(undisturbed.run())
    interrupted = _training(toy_slices())
    first = next(interrupted.run())
    # Looking at slices leaves no trace.
    assert interrupted.seen_slices()
    save_state(tmp_path / "state.pt", interrupted.state())
    resumed = _training(toy_slices())
    torch.manual_seed(1234)
    resumed.restore(load_state(tmp_path / "state.pt"))
    results = [first, *resumed.run()]
    assert [_without_times(result) for result in results] == [
        _without_times(result) for result in expected
    ]
    for key, tensor in undisturbed.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[key]), key


def _without_times(result: object) -> object:
    return replace(result, seconds=0.0, train_seconds=0.0, data_seconds=0.0, memory_gb=0.0)  # type: ignore[type-var]


def test_the_seed_changes_the_run(toy_slices: Callable[..., SliceSet]) -> None:
    first, other = (
        next(_training(toy_slices(), seed=seed).run()).losses["total"] for seed in (1, 2)
    )
    assert first != other


class _Bright(nn.Module):
    """Calls lesion what is above 1; one weight, for the optimiser's sake."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return self.weight * 4 * (slices[:, :1] - 1.0)


def test_the_objective_is_the_mean_of_the_cases_3d_dice() -> None:
    # Case a: slice 0 has 4 true voxels of which 2 are found, slice 1 has none and 1 false
    # one: Dice 2 * 2 / (4 + 3). Case b: no lesion, nothing found: 1. Case c: no lesion,
    # one voxel found: 0. The mean over slices would be another number.
    images = np.full((4, 1, 32, 32), 0.5, dtype=np.float16)
    masks = np.zeros((4, 32, 32), dtype=np.uint8)
    masks[0, 0, :4] = 1
    images[0, 0, 0, :2] = 2
    images[1, 0, 5, 5] = 2
    images[3, 0, 7, 7] = 2
    slices = slices_in_memory([images], [masks], np.array(["a", "a", "b", "c"]))
    config = TrialConfig(learning_rate=1e-9, augmentation=0, batch_size=4)
    result = next(Training(_Bright(), slices, slices, config, epochs=1).run())
    assert result.dice == pytest.approx((4 / 7 + 1 + 0) / 3)


def test_slices_without_brain_are_lesion_free_and_never_trained_on() -> None:
    # The network would call the empty slice lesion all over: 4 * (0 + 1) above 0.
    class Dark(_Bright):
        def forward(self, slices: torch.Tensor) -> torch.Tensor:
            return self.weight * 4 * (slices[:, :1] + 1.0)

    images = np.zeros((2, 1, 32, 32), dtype=np.float16)
    images[0] = -2
    images[0, 0, 0, :4] = 1
    masks = (images[:, 0] > 0).astype(np.uint8)
    slices = slices_in_memory([images], [masks], np.array(["a", "a"]))
    config = TrialConfig(learning_rate=1e-9, augmentation=0, batch_size=4)
    result = next(Training(Dark(), slices, slices, config, epochs=1).run())
    assert result.dice == 1
    assert result.slices == 1


def test_an_exploding_learning_rate_fails_the_trial(toy_slices: Callable[..., SliceSet]) -> None:
    config = _CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrialFailure, match="no longer finite"):
        list(_training(toy_slices(), config).run())


def test_infinite_input_fails_the_trial(toy_slices: Callable[..., SliceSet]) -> None:
    slices = toy_slices()
    slices.store.images[0][0, 0, 0, 0] = np.inf
    with pytest.raises(TrialFailure, match="epoch 1"):
        next(_training(slices).run())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_that_the_gpu_does_not_hold_fails_the_trial_and_the_next_one_trains(
    toy_slices: Callable[..., SliceSet],
) -> None:
    # Limits of memory want the GPU by its number.
    device = torch.device("cuda", 0)
    slices = toy_slices()
    small = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8)
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    # Far larger than what torch has in reserve beside the network.
    images = np.ones((8, 2, 512, 512), dtype=np.float16)
    large = slices_in_memory([images], [images[:, 0].astype(np.uint8)], np.array(["a"] * 8))
    training = Training(network, large, large, small, epochs=1, device=device)
    # No more than the network has already.
    held = torch.cuda.memory_reserved(device) / torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(held, device)
    try:
        with pytest.raises(TrialFailure, match="batches of 8 slices do not fit"):
            next(training.run())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    again = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    assert next(Training(again, slices, slices, small, epochs=1, device=device).run()).slices > 0


def test_infinite_input_in_validation_fails_the_trial(
    toy_slices: Callable[..., SliceSet],
) -> None:
    broken = toy_slices(seed=1)
    broken.store.images[0][0, 0, 0, 0] = np.inf
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2)
    with pytest.raises(TrialFailure, match="in validation"):
        next(Training(network, toy_slices(), broken, _CONFIG, epochs=1).run())


def test_training_without_any_lesion_is_the_users_fault(
    toy_slices: Callable[..., SliceSet],
) -> None:
    slices = toy_slices()
    lesion_free = slices.keep(slices.lesion_voxels == 0)
    with pytest.raises(UserError, match="show no lesion"):
        _training(lesion_free)


def test_slices_per_epoch_bounds_an_epoch(toy_slices: Callable[..., SliceSet]) -> None:
    assert next(_training(toy_slices(), slices_per_epoch=10).run()).slices == 10


def test_a_case_is_counted_over_all_its_slices_before_its_dice_is_taken() -> None:
    # a: 2 * (1 + 2) / ((1 + 3) + (2 + 4)) = 0.6; b: empty and found empty: 1.
    dice = dice_by_case(
        np.array(["a", "b", "a"]), np.array([1, 0, 2]), np.array([1, 0, 3]), np.array([2, 0, 4])
    )
    assert dice == pytest.approx({"a": 0.6, "b": 1.0})


@pytest.mark.parametrize(
    ("step", "steps", "factor"),
    [
        # 5 of 100 steps to warm up, in fifths.
        (0, 100, 0.2),
        (4, 100, 1.0),
        # Then 95 steps to fall: none of the way, all of the way.
        (99, 100, 0.01),
        # 10 of 19 steps after a warm-up of 1: 0.01 + 0.99 * (1 + cos(10/19 pi)) / 2.
        (10, 20, 0.464121),
        (0, 1, 1.0),
    ],
)
def test_the_learning_rate_warms_up_and_falls_along_a_cosine(
    step: int, steps: int, factor: float
) -> None:
    assert rate_factor(step, steps) == pytest.approx(factor, abs=1e-5)
