"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from strokeseg.config import TrialConfig
from strokeseg.imaging.table import slices_to_table
from strokeseg.learning.augment import augment
from strokeseg.learning.networks import build_network
from strokeseg.learning.slice_set import SliceSet, slices_in_memory
from strokeseg.learning.stores import FiledSlices
from strokeseg.learning.training import EpochResult, Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

_CONFIG = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)


def _train(
    slices: SliceSet, device: str, precision: torch.dtype | None, epochs: int = 1
) -> EpochResult:
    torch.manual_seed(0)
    network = build_network(encoder="resnet18", encoder_depth=3, channels=2)
    # The GPU's augmentation has draws of its own.
    config = _CONFIG.model_copy(update={"augmentation": 0.0})
    training = Training(
        network, slices, slices, config, epochs=epochs, device=device, precision=precision
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


def test_stores_give_a_gpu_equal_batches(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(40, 4, 32, 64)).astype(np.float16)
    masks = (generator.random((40, 32, 64)) > 0.5).astype(np.uint8)
    mapped = slices_in_memory([images], [masks], np.array(["a"] * 40))
    table = slices_to_table("a", "a", images, masks, {})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    filed = SliceSet(
        store=FiledSlices([tmp_path / "a.parquet"], [40], mapped.store.shape),
        cases=mapped.cases,
        lesion_voxels=mapped.lesion_voxels,
        holds_brain=mapped.holds_brain,
    )
    device = torch.device("cuda")
    plan = [generator.integers(0, 40, size=16) for _ in range(50)]

    def batches(slices: SliceSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return slices.batches(plan, device)

    compared = 0
    for rows, *stores in zip(
        plan, batches(mapped), batches(filed), batches(mapped.on(device)), strict=True
    ):
        for given_images, given_masks in stores:
            assert given_images.device.type == given_masks.device.type == "cuda"
            assert np.array_equal(given_images.cpu().numpy(), images[rows].astype(np.float32))
            assert np.array_equal(given_masks.cpu().numpy()[:, 0], masks[rows])
            compared += 1
    assert compared == 150


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
        torch.manual_seed(0)
        network = build_network(encoder="resnet18", encoder_depth=3, channels=2)
        return Training(network, slices, slices, _CONFIG, epochs=3, device="cuda")

    whole = fresh()
    results = list(whole.run())
    first = fresh()
    next(first.run())
    second = fresh()
    second.restore(first.state())
    (two, three) = second.run()
    assert (two.epoch, three.epoch) == (2, 3)
    # Kernels of a GPU add in no fixed order.
    assert three.losses == pytest.approx(results[2].losses, rel=0.05)
