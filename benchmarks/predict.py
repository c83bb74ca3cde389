"""Seconds a case of `strokeseg predict`, with PyTorch and with onnxruntime, by one bundle.

Whole processes in turn, the start of Python and the opening of the bundle included, on the same
cases and on the CPU. Reading, preparing, the way back and the derivatives are the same for both.
At the end the masks are compared, voxel by voxel.

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

from benchmarks.part import Options, tell, timed

_RUNTIMES = ("torch", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="cases, as predict takes them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lock", type=Path, help="file to lock around each timed command")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {runtime: [] for runtime in _RUNTIMES}
    with tempfile.TemporaryDirectory(prefix="predict-") as place:
        for _ in range(options.repeats):
            for runtime in _RUNTIMES:
                output = Path(place) / runtime
                command = [sys.executable, "-m", "strokeseg.predict", "--overwrite"]
                command += ["--bundle", str(options.bundle.absolute()), "--runtime", runtime]
                command += ["--input", str(options.input.absolute()), "--output", str(output)]
                if runtime == "torch":
                    command += ["--device", "cpu"]
                took = timed(command, Options(lock=options.lock)).seconds
                seconds[runtime].append(took / _count_cases(output))
                tell(f"{runtime}: {seconds[runtime][-1]:.2f} s a case")
        differing, voxels = _compare(*(Path(place) / runtime for runtime in _RUNTIMES))
    for runtime, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{runtime}: {median(values):.2f} s a case ({spread}, {len(values)} runs)")
    ratio = median(seconds["torch"]) / median(seconds["onnx"])
    print(f"onnxruntime is {ratio:.2f} times as fast; {differing} of {voxels} voxels differ")


def _count_cases(output: Path) -> int:
    with (output / "lesions.csv").open(encoding="utf-8", newline="") as file:
        return len(list(csv.DictReader(file)))


def _compare(first: Path, second: Path) -> tuple[int, int]:
    """Count the voxels of all masks that differ, and all voxels."""
    differing = voxels = 0
    for path in first.rglob("*_mask.nii.gz"):
        masks = [
            np.asarray(nibabel.load(root / path.relative_to(first)).dataobj)
            for root in (first, second)
        ]
        differing += int(np.count_nonzero(masks[0] != masks[1]))
        voxels += masks[0].size
    return differing, voxels


if __name__ == "__main__":
    main()
