"""How long PyTorch's threads should spin while they wait for each other, before they sleep.

Slices a second that a U-Net trains on and predicts with two threads, alone on the machine and with
a second process like it beside it, for values of GOMP_SPINCOUNT and for OMP_WAIT_POLICY=PASSIVE.
`library` is what OpenMP does by itself, `ours` what strokeseg sets. Values take turns, round
after round; the median of each is shown.

python -m benchmarks.spinning
python -m benchmarks.spinning --rounds 5 --side 160
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from statistics import median

CHOICES: dict[str, dict[str, str]] = {
    "library": {},
    "ours": {},
    "5000": {"GOMP_SPINCOUNT": "5000"},
    "50000": {"GOMP_SPINCOUNT": "50000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
THREADS = 2
# What strokeseg sets comes too late for a PyTorch that was loaded before it.
WORK = """
import sys, time
if sys.argv[1] == "library":
    import torch
import strokeseg
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from strokeseg.learning.networks import build_network

threads, side, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
torch.set_num_threads(threads)
network = build_network(encoder="resnet18", encoder_depth=4, channels=4, seed=0)
network = network.to(memory_format=torch.channels_last)
optimiser = torch.optim.AdamW(network.parameters())
images = torch.randn(16, 4, side, side).contiguous(memory_format=torch.channels_last)
masks = (torch.rand(16, 1, side, side) > 0.9).float()

def train():
    optimiser.zero_grad()
    binary_cross_entropy_with_logits(network(images), masks).backward()
    optimiser.step()

def predict():
    with torch.inference_mode():
        network(images)

for work in (train, predict):
    work()
    begun, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        work()
        done += len(images)
    print(done / passed)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="pixels along a slice's side")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    speeds: dict[tuple[str, int, int], list[float]] = {}
    for _ in range(options.rounds):
        for choice in CHOICES:
            for crowd in (1, 2):
                for process in _begin(choice, crowd, options.side, options.seconds):
                    out, _ = process.communicate()
                    if process.returncode:
                        sys.exit(f"{choice}: exit code {process.returncode}")
                    for which, speed in enumerate(out.split()):
                        speeds.setdefault((choice, crowd, which), []).append(float(speed))
    print("slices/s a process    train alone   beside one   predict alone   beside one")
    for choice in CHOICES:
        figures = [median(speeds[choice, crowd, which]) for which in (0, 1) for crowd in (1, 2)]
        print(f"{choice:<20}" + "".join(f"{figure:13.1f}" for figure in figures))


def _begin(choice: str, crowd: int, side: int, seconds: float) -> list[subprocess.Popen[str]]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    arguments = [choice, str(THREADS), str(side), str(seconds)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORK, *arguments],
            env=environment | CHOICES[choice],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(crowd)
    ]


if __name__ == "__main__":
    main()
