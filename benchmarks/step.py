"""Training slices a second of a trial against a bare loop, and the wait for slices.

The trial is strokeseg's Training over slices in mapped memory, unpacked on the disk, and held on
the device; the bare loop is what is left when everything but the steps is taken away: batches of
one tensor that lies on the device, the same network, precision, loss and AdamW, no schedule, no
checks, no augmentation on either side. On the GPU where there is one, else on one CPU thread. Both
sides take turns, epoch by epoch.

python -m benchmarks.step
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.part import Options, one_thread, run_alone
from benchmarks.results import Comparison, Figure, PartResult
from strokeseg.imaging.slice_table import slices_to_table
from strokeseg.imaging.unpacked import unpack
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.loop import Training
from strokeseg.training.loss import MixedLoss
from strokeseg.training.network import build_network
from strokeseg.training.precision import Stepper, reduced_type
from strokeseg.training.slice_set import SliceSet, slices_in_memory
from strokeseg.training.stores import UnpackedSlices

ENCODERS = (("resnet18", 5), ("tu-tf_efficientnet_lite0", 4))
CASES, SLICES, SIDE, BATCH, QUICK_SLICES = 4, 64, 96, 16, 16
TARGET, WAIT_TARGET = 0.98, 0.01


def main() -> None:
    run_alone(run, __doc__)


def run(options: Options) -> PartResult:
    """Time trial and loop in turn, per encoder and way of feeding."""
    with one_thread() as device:
        comparisons: list[Comparison] = []
        with tempfile.TemporaryDirectory(prefix="step-") as folder:
            for way, slices in feeds(Path(folder), device, options).items():
                for encoder, depth in ENCODERS:
                    comparisons += compare(way, slices, encoder, depth, device, options)
    return PartResult(
        title="What does a trial lose against a bare loop?",
        method=(
            f"Slices of 4 x {SIDE} x {SIDE}, batches of {BATCH}, {device.type}, one thread. The "
            "wait is the share of training time in which the network waits for slices."
        ),
        comparisons=tuple(comparisons),
        figures=(Figure(name="slices an epoch", unit="", values=(float(count(options)),)),),
    )


def count(options: Options) -> int:
    return CASES * (QUICK_SLICES if options.quick else SLICES)


def feeds(folder: Path, device: torch.device, options: Options) -> dict[str, SliceSet]:
    """Make slices of noise with a square lesion in half of them, in each kind of store."""
    generator = np.random.default_rng(0)
    each = count(options) // CASES
    images = generator.normal(size=(CASES, each, 4, SIDE, SIDE)).astype(np.float16)
    masks = np.zeros((CASES, each, SIDE, SIDE), dtype=np.uint8)
    masks[:, ::2, 20:40, 30:50] = 1
    names = np.repeat([f"case{case}" for case in range(CASES)], each)
    mapped = slices_in_memory(images, masks, names)
    files = []
    for case in range(CASES):
        table = slices_to_table(f"case{case}", f"case{case}", images[case], masks[case], {})
        files.append(folder / f"case{case}.parquet")
        pq.write_table(table, files[-1], row_group_size=1, compression="zstd")
    with unpack(files, [each] * CASES, mapped.store.shape, folder) as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        unpacked = UnpackedSlices(path, len(mapped), mapped.store.shape)
    return {
        "mapped": mapped,
        "unpacked": replace(mapped, store=unpacked),
        "held": mapped.on(device),
    }


def compare(
    way: str,
    slices: SliceSet,
    encoder: str,
    depth: int,
    device: torch.device,
    options: Options,
) -> list[Comparison]:
    config = TrialConfig(
        encoder=encoder,
        encoder_depth=depth,
        batch_size=BATCH,
        augmentation=0.0,
        lesion_fraction=0.5,
    )
    network = build_network(NetworkConfig(encoder=encoder, encoder_depth=depth), channels=4)
    repeats = options.times(3) + 1
    one_slice = slices.keep(np.arange(len(slices)) == 0)
    trial = Training(network, slices, one_slice, config, epochs=repeats, device=device).run()
    loop = bare_loop(slices, encoder, depth, device)
    rates, waits = [], []
    for _ in range(repeats):
        result = next(trial)
        rates.append((result.slices / result.train_seconds, next(loop)))
        waits.append(result.data_seconds / result.train_seconds)
    # The first epoch of either warms up.
    ours, theirs = zip(*rates[1:], strict=True)
    return [
        Comparison(
            what=f"{encoder}, {way}",
            other="a bare loop",
            unit="slices/s",
            ours=ours,
            theirs=theirs,
            less_is_better=False,
            target=TARGET,
        ),
        Comparison(
            what=f"{encoder}, {way}: wait for slices",
            other="the step",
            unit="share",
            ours=tuple(waits[1:]),
            theirs=(1.0,) * len(waits[1:]),
            less_is_better=True,
            target=WAIT_TARGET,
        ),
    ]


def bare_loop(slices: SliceSet, encoder: str, depth: int, device: torch.device) -> Iterator[float]:
    """Train epoch after epoch on one tensor; yield slices a second of each."""
    images, masks = slices.gather(np.arange(len(slices)), device)
    network = build_network(NetworkConfig(encoder=encoder, encoder_depth=depth), channels=4).to(
        device
    )
    network.train()
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4, fused=True)
    stepper = Stepper(optimiser, device, reduced_type(device, network))
    loss = MixedLoss({"dice": 0.5, "cross_entropy": 0.5})
    while True:
        started = time.perf_counter()
        for rows in torch.randperm(len(slices)).to(device).split(BATCH):
            batch = images[rows].contiguous(memory_format=torch.channels_last)
            with stepper.autocast():
                logits = network(batch)
            stepper.step(loss(logits, masks[rows])[0], parameters)
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield len(slices) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
