"""One training over several processes learns what one process would have learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from strokeseg.config import TrialConfig
from strokeseg.learning.batch_norm import share_statistics
from strokeseg.learning.new_training import new_training
from strokeseg.learning.objective import TrialFailure
from strokeseg.learning.slice_set import SliceSet
from strokeseg.learning.training import EpochResult, Training
from strokeseg.learning.world import ALONE, World

CPU = torch.device("cpu")
# 24 slices an epoch in batches of 7: 7, 7, 7 and 3, none of which two processes halve evenly.
CONFIG = TrialConfig(
    encoder="resnet18", encoder_depth=3, batch_size=7, learning_rate=1e-3, augmentation=0.7
)


def _in_processes(size: int, work: Callable[..., Any], folder: Path, *rest: Any) -> list[Any]:
    """Do work in a world of real processes that talk over gloo, and return what each found."""
    multiprocessing.start_processes(
        _join, args=(size, work, str(folder), *rest), nprocs=size, start_method="spawn"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _join(rank: int, size: int, work: Callable[..., Any], folder: str, *rest: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size
    )
    torch.save(work(World(rank=rank, size=size), *rest), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def _train(
    world: World, training: SliceSet, validation: SliceSet, slices: int | None = None
) -> tuple[list[EpochResult], dict[str, torch.Tensor]]:
    """Train two epochs; return their results and the tensors of network and optimiser."""
    run = new_training(
        CONFIG,
        training,
        validation,
        axis="axial",
        encoder_weights=None,
        epochs=2 if slices is None else 1,
        slices_per_epoch=slices,
        device=CPU,
        seed=3,
        world=world,
        precision=torch.float32,
    )
    results = list(run.run())
    moments = run.state()["optimiser"]["state"]
    averages = {f"average {key}": state["exp_avg"] for key, state in moments.items()}
    return results, {**run.network.state_dict(), **averages}


def test_a_step_of_two_processes_has_the_gradients_of_one(
    toy_slices: Callable[..., SliceSet], tmp_path: Path
) -> None:
    sets = toy_slices(cases=2), toy_slices(cases=3, seed=1)
    # An epoch of one step: the optimiser's average is a tenth of the clipped gradient.
    (expected,), tensors = _train(ALONE, *sets, 7)
    for (result,), state in _in_processes(2, _train, tmp_path, *sets, 7):
        assert result.losses == pytest.approx(expected.losses, rel=1e-5)
        for name in (name for name in tensors if name.startswith("average")):
            largest = float(tensors[name].abs().max())
            assert torch.allclose(state[name], tensors[name], atol=1e-3 * largest, rtol=0), name


@pytest.mark.parametrize("size", [2, 3])
def test_processes_together_learn_what_one_would_have(
    toy_slices: Callable[..., SliceSet], tmp_path: Path, size: int
) -> None:
    sets = toy_slices(cases=2), toy_slices(cases=3, seed=1)
    expected, weights = _train(ALONE, *sets)
    found = _in_processes(size, _train, tmp_path, *sets)
    for results, state in found:
        for result, single in zip(results, expected, strict=True):
            # AdamW's first steps are as long for a gradient that is rounding alone, and voxels
            # whose probability is nearly a half fall on either side.
            assert result.losses == pytest.approx(single.losses, rel=1e-2)
            assert result.case_dice == pytest.approx(single.case_dice, abs=0.01)
            assert result.slices == single.slices
        assert state.keys() == weights.keys()
    # Rank by rank everything is the same, to the last bit.
    for results, state in found[1:]:
        assert [result.case_dice for result in results] == [r.case_dice for r in found[0][0]]
        assert all(torch.equal(state[name], found[0][1][name]) for name in state)


def _agreed(world: World, *states: dict[str, Any]) -> dict[str, Any]:
    return world.agree(states[world.rank])


def test_all_ranks_go_on_from_what_rank_0_knows(tmp_path: Path) -> None:
    states = [
        {"history": [{"epoch": epoch, "dice": 0.5}] * epoch, "training": {"w": torch.ones(epoch)}}
        for epoch in (3, 2)
    ]
    assert ALONE.agree(states[1]) is states[1]
    for found in _in_processes(2, _agreed, tmp_path, *states):
        assert found["history"] == states[0]["history"]
        assert torch.equal(found["training"]["w"], torch.ones(3))


def _normalise(world: World, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    layer = nn.Sequential(nn.BatchNorm2d(3))
    layer[0].weight.data = torch.tensor([1.0, 2.0, -1.0])
    if world.size > 1:
        share_statistics(layer, CPU)
    rows = batch[world.share].clone().requires_grad_()
    out = layer(rows)
    (out**3).sum().backward()
    evaluated = layer.eval()(rows)
    return {
        **{"rows": rows.detach(), "out": out.detach(), "gradient": rows.grad},
        **{"evaluated": evaluated.detach(), "weight": layer[0].weight.grad, **layer.state_dict()},
    }


def test_batch_statistics_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = 3 + 2 * torch.randn(5, 3, 4, 4, generator=generator)
    expected = _normalise(ALONE, batch)
    found = _in_processes(2, _normalise, tmp_path, batch)
    for rank, one in enumerate(found):
        for name in ("out", "gradient", "evaluated"):
            assert torch.allclose(one[name], expected[name][rank::2], atol=1e-4), name
        for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
            assert torch.allclose(one[name].float(), expected[name].float()), name
    # Each has the gradient of its own rows.
    assert torch.allclose(found[0]["weight"] + found[1]["weight"], expected["weight"], rtol=1e-4)


def _fails(world: World, training: SliceSet, validation: SliceSet) -> str:
    try:
        _train(world, training, validation)
    except TrialFailure as failure:
        return str(failure)
    return ""


def test_all_processes_fail_together_when_one_meets_what_is_not_finite(
    toy_slices: Callable[..., SliceSet], tmp_path: Path
) -> None:
    training, validation = toy_slices(), toy_slices(seed=1)
    validation.store.images[0][0, 0, 0, 0] = np.inf
    found = _in_processes(2, _fails, tmp_path, training, validation)
    assert found[0] == found[1]
    assert "epoch 1, in validation" in found[0]


def test_batches_smaller_than_the_world_fail_the_trial(
    toy_slices: Callable[..., SliceSet],
) -> None:
    slices = toy_slices()
    network = nn.Conv2d(2, 1, 1)
    config = CONFIG.model_copy(update={"batch_size": 2})
    with pytest.raises(TrialFailure, match="2 slices cannot be dealt out to 3"):
        Training(network, slices, slices, config, epochs=1, world=World(rank=0, size=3))
