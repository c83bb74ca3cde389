"""What 16 bits and torch.compile bring a training step, per encoder, on this machine's devices.

Steps of a U-Net on 16 slices of 4 x 96 x 96, on one CPU thread, or on the GPU where there is one;
float32 and the device's 16-bit type in turn. Also torch.compile of one network: the seconds that
compiling takes, and the number of steps after which it has paid. On a GPU steps are launched kernel
by kernel here; benchmarks/recording.py has those of a trial.

python -m benchmarks.precision
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.part import Options, one_thread, run_alone
from benchmarks.results import Comparison, Figure, PartResult
from strokeseg.learning.networks import build_network
from strokeseg.learning.precision import Stepper, reduced_type

ENCODERS = (("resnet18", 5), ("resnet34", 5), ("tu-tf_efficientnet_lite0", 4))
BATCH, SIDE, STEPS, QUICK_STEPS = 16, 96, 8, 3


def main() -> None:
    run_alone(run, __doc__)


def run(options: Options) -> PartResult:
    """Time both precisions, and what compiling would save."""
    with one_thread() as device:
        # For grouped networks too, whose own type on CPUs is float32: what they would lose.
        reduced = reduced_type(device, nn.Identity())
        comparisons: list[Comparison] = []
        figures: list[Figure] = []
        left_out: list[str] = []
        for encoder, depth in ENCODERS:
            rates: dict[torch.dtype | None, list[float]] = {None: [], reduced: []}
            for _ in range(options.times(2)):
                for kind, values in rates.items():
                    values.append(slices_per_second(encoder, depth, device, kind, options))
            if reduced is None:
                left_out.append(f"{encoder}: {device.type} computes in float32 alone")
                figures.append(Figure(name=encoder, unit="slices/s", values=tuple(rates[None])))
                continue
            comparisons.append(
                Comparison(
                    what=f"{encoder}, {reduced}",
                    other="float32",
                    unit="slices/s",
                    ours=tuple(rates[reduced]),
                    theirs=tuple(rates[None]),
                    less_is_better=False,
                )
            )
        encoder, depth = ENCODERS[0]
        figures += compiling(encoder, depth, device, reduced, options)
    return PartResult(
        title="What do 16 bits and compiling bring?",
        method=(
            f"Training steps on {BATCH} slices of 4 x {SIDE} x {SIDE}, {device.type}, one thread, "
            "precisions in turn."
        ),
        comparisons=tuple(comparisons),
        figures=tuple(figures),
        left_out=tuple(left_out),
    )


def slices_per_second(
    encoder: str, depth: int, device: torch.device, kind: torch.dtype | None, options: Options
) -> float:
    network = build_network(encoder=encoder, encoder_depth=depth, channels=4).to(device)
    step = step_of(network, network, device, kind)
    return BATCH / seconds_a_step(step, device, options)


def compiling(
    encoder: str, depth: int, device: torch.device, kind: torch.dtype | None, options: Options
) -> list[Figure]:
    """Compile one network, and tell when that would have paid."""
    network = build_network(encoder=encoder, encoder_depth=depth, channels=4).to(device)
    plain = seconds_a_step(step_of(network, network, device, kind), device, options)
    started = time.perf_counter()
    step = step_of(network, torch.compile(network), device, kind)
    step()
    _wait(device)
    compiled_in = time.perf_counter() - started
    compiled = seconds_a_step(step, device, options)
    pays = compiled_in / (plain - compiled) if compiled < plain else float("inf")
    return [
        Figure(name=f"compiling {encoder}", unit="s", values=(compiled_in,)),
        Figure(name=f"{encoder} compiled, steps as fast", unit="times", values=(plain / compiled,)),
        Figure(name="steps until compiling has paid", unit="steps", values=(pays,)),
    ]


def step_of(
    network: nn.Module, called: nn.Module, device: torch.device, kind: torch.dtype | None
) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    stepper = Stepper(optimiser, device, kind)
    images = torch.randn(BATCH, 4, SIDE, SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with stepper.autocast():
            logits = called(images)
        stepper.step(logits.float().square().mean(), network.parameters())

    return step


def seconds_a_step(step: Callable[[], None], device: torch.device, options: Options) -> float:
    for _ in range(2):
        step()
    _wait(device)
    count = QUICK_STEPS if options.quick else STEPS
    started = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
