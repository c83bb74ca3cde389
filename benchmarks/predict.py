"""Seconds a case of `strokeseg predict`, with PyTorch and with onnxruntime, by one bundle.

Whole processes in turn, the start of Python and the opening of the bundle included, on the same
cases and on the CPU; with PyTorch on a GPU too, where there is one, which computes in 16 bits.
Reading, preparing, the way back and the derivatives are the same for all. At the end each one's
masks are compared with those of PyTorch on the CPU: the voxels that differ, and each case's Dice.

python -m benchmarks.predict --bundle runs/siss-like/bundle.zip --input ../shared/data/siss-like
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from statistics import median

import nibabel
import numpy as np
import torch

from benchmarks.part import Options, tell, timed

_FIRST = "torch"
_WAYS = {
    _FIRST: ("--runtime", "torch", "--device", "cpu"),
    "onnxruntime": ("--runtime", "onnx"),
    "torch on a GPU": ("--runtime", "torch", "--device", "cuda"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="cases, as predict takes them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lock", type=Path, help="file to lock around each timed command")
    options = parser.parse_args()
    ways = [way for way, given in _WAYS.items() if "cuda" not in given or torch.cuda.is_available()]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="predict-") as place:
        for _ in range(options.repeats):
            for way in ways:
                output = Path(place) / way
                command = [sys.executable, "-m", "strokeseg.predict", "--overwrite", *_WAYS[way]]
                command += ["--bundle", str(options.bundle.absolute())]
                command += ["--input", str(options.input.absolute()), "--output", str(output)]
                took = timed(command, Options(lock=options.lock)).seconds
                seconds[way].append(took / _count_cases(output))
                tell(f"{way}: {seconds[way][-1]:.2f} s a case")
        for way, values in seconds.items():
            spread = f"{min(values):.2f} to {max(values):.2f}, {len(values)} runs"
            print(f"{way}: {median(values):.2f} s a case ({spread})")
            if way != _FIRST:
                ratio = median(seconds[_FIRST]) / median(values)
                reported = _compare(Path(place) / _FIRST, Path(place) / way)
                print(f"  {ratio:.2f} times as fast as {_FIRST}; {reported}")


def _count_cases(output: Path) -> int:
    with (output / "lesions.csv").open(encoding="utf-8", newline="") as file:
        return len(list(csv.DictReader(file)))


def _compare(first: Path, second: Path) -> str:
    """Tell how much the masks in two folders differ."""
    differing = voxels = 0
    dices = []
    for path in first.rglob("*_mask.nii.gz"):
        one, other = (
            np.asarray(nibabel.load(root / path.relative_to(first)).dataobj) > 0
            for root in (first, second)
        )
        differing += int(np.count_nonzero(one != other))
        voxels += one.size
        if lesion := int(one.sum() + other.sum()):
            dices.append(2 * int(np.count_nonzero(one & other)) / lesion)
    lowest = f"{min(dices):.4f}" if dices else "-"
    return f"{differing} of {voxels} voxels differ, the lowest Dice is {lowest}"


if __name__ == "__main__":
    main()
