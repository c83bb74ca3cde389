"""What a trial on a GPU gains from steps that are recorded and played back, by precision.

strokeseg's Training with augmentation, on slices that the GPU holds, 16 a step; once as it is and
once with every step taken live, epoch by epoch in turn. Needs a GPU.

python -m benchmarks.recording
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from benchmarks.part import Options, one_thread, run_alone
from benchmarks.results import Comparison, Figure, PartResult
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.cuda_graph import Recording, Step
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.slice_set import SliceSet, slices_in_memory

ENCODERS = (("resnet18", 5), ("resnet50", 5), ("tu-tf_efficientnet_lite0", 4))
SIDES = (96, 240)
PRECISIONS = (torch.float32, torch.bfloat16)
SLICES, BATCH, EPOCHS = 1024, 16, 2


def main() -> None:
    run_alone(run, __doc__)


def run(options: Options) -> PartResult:
    """Train both ways in turn, and tell what validation takes besides."""
    comparisons: list[Comparison] = []
    figures: list[Figure] = []
    with one_thread() as device:
        if device.type != "cuda":
            sys.exit("recording: needs a GPU, and there is none")
        for side in SIDES:
            slices = noise(side).on(device)
            for encoder, depth in ENCODERS:
                for precision in PRECISIONS:
                    results = compare(slices, encoder, depth, precision, device, options)
                    ours, theirs = (
                        tuple(result.slices / result.train_seconds for result in way)
                        for way in results
                    )
                    what = f"{encoder}, {side} x {side}, {str(precision).removeprefix('torch.')}"
                    comparisons.append(
                        Comparison(
                            what=what,
                            other="live steps",
                            unit="slices/s",
                            ours=ours,
                            theirs=theirs,
                            less_is_better=False,
                        )
                    )
                    last = results[0][-1]
                    spent = (last.seconds - last.train_seconds) / last.seconds
                    figures.append(
                        Figure(name=f"{what}: validation", unit="share", values=(spent,))
                    )
                    figures.append(
                        Figure(name=f"{what}: held", unit="GB", values=(last.memory_gb,))
                    )
    return PartResult(
        title="What do recorded steps bring?",
        method=(
            f"{torch.cuda.get_device_name()}; {SLICES} slices of 4 sequences an epoch, batches of "
            f"{BATCH}, augmentation 0.5, a quarter of the slices validated. Memory is of both "
            "trainings."
        ),
        comparisons=tuple(comparisons),
        figures=tuple(figures),
    )


def compare(
    slices: SliceSet,
    encoder: str,
    depth: int,
    precision: torch.dtype,
    device: torch.device,
    options: Options,
) -> tuple[list[EpochResult], list[EpochResult]]:
    config = TrialConfig(
        encoder=encoder,
        encoder_depth=depth,
        batch_size=BATCH,
        augmentation=0.5,
        lesion_fraction=0.5,
    )
    epochs = options.times(EPOCHS)
    validation = slices.keep(np.arange(len(slices)) < len(slices) // 4)
    torch.cuda.reset_peak_memory_stats()
    ways = [
        Training(
            build_network(NetworkConfig(encoder=encoder, encoder_depth=depth), channels=4),
            slices,
            validation,
            config,
            epochs=epochs + 1,
            device=device,
            precision=precision,
        ).run()
        for _ in range(2)
    ]
    found: list[tuple[EpochResult, EpochResult]] = []
    for _ in range(epochs + 1):
        recorded = next(ways[0])
        with live_steps():
            found.append((recorded, next(ways[1])))
    # The first epoch warms up, and records.
    return [ours for ours, _ in found[1:]], [theirs for _, theirs in found[1:]]


@contextmanager
def live_steps() -> Iterator[None]:
    """Take all steps as they come."""

    def take(_: Recording, step: Step, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return step(images, masks)

    kept = Recording.take
    Recording.take = take  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recording.take = kept  # type: ignore[method-assign]


def noise(side: int) -> SliceSet:
    """Make slices of noise with a square lesion in half of them."""
    images = np.random.default_rng(0).normal(size=(SLICES, 4, side, side)).astype(np.float16)
    masks = np.zeros((SLICES, side, side), dtype=np.uint8)
    masks[::2, 20:40, 30:50] = 1
    return slices_in_memory([images], [masks], np.array(["noise"] * SLICES))


if __name__ == "__main__":
    main()
