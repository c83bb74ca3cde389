"""How many trials should share a GPU: what `--gpus-per-trial auto` measures, printed.

For each encoder, trials train side by side on one GPU, 1, 2, 4 and 8 of them as far as its memory
goes; slices a second of all together, and how many times one trial's that is. Without a GPU the
same runs on CPUs, one a trial, where it only shows that it works.

python -m benchmarks.packing
python -m benchmarks.packing --side 240 --batch 32
"""

from __future__ import annotations

import argparse

import psutil
import ray
import torch

from strokeseg.tuning.gpu_sharing import best_trial_count, measure_sharing
from strokeseg.tuning.space import Dimension, Space

ENCODERS = ("resnet18", "resnet34", "resnet50", "efficientnet-b0")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=96, help="height and width of a slice")
    parser.add_argument("--batch", type=int, default=16, help="slices a step")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cpus = psutil.cpu_count() or 1
    # Where there is no GPU, Ray is given one.
    ray.init(address="local", num_cpus=cpus, num_gpus=1, include_dashboard=False)
    print(f"{device}, slices of 4 x {options.side} x {options.side}, batches of {options.batch}")
    for encoder in options.encoders:
        space = Space(
            dimensions={
                "encoder": Dimension(value=encoder),
                "batch_size": Dimension(value=options.batch),
            },
            first=(),
        )
        shape = (4, options.side, options.side)
        memory, throughputs = measure_sharing([space], shape, min(8, cpus), device=device)
        alone = throughputs[0].slices_per_second
        print(
            f"{encoder}: {memory.trial_bytes / 1e9:.1f} GB a trial;",
            ", ".join(
                f"{one.trials}: {one.slices_per_second:.0f}/s ({one.slices_per_second / alone:.2f})"
                for one in throughputs
            ),
            f"-> 1/{best_trial_count(throughputs)} of a GPU a trial",
            flush=True,
        )


if __name__ == "__main__":
    main()
