"""What predicting one case takes: the share of time inside networks, and memory at a large size.

The share is measured on a simulated case of the size of ISLES 2015 SISS (230 x 230 x 154 voxels of
1 mm, four sequences) with one small U-Net an axis, from the files to the last derivative, on all
CPUs. The larger the networks, the larger their share. Memory is the largest resident set of a
process that segments a case of 512 x 512 x 400 voxels, where the networks are one convolution
each that calls all of the brain lesion: what is measured is what everything but a network takes.
With `--quick` the sizes are a half of that along each axis.

python -m benchmarks.predict_case
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.part import Options, run_alone, tell, timed
from benchmarks.results import Comparison, Figure, PartResult
from strokeseg.ensemble.prediction import Tool, predict_case
from strokeseg.ensemble.slicewise import Predictor
from strokeseg.ensemble.vote import Ensemble
from strokeseg.imaging.cases import Case
from strokeseg.imaging.layouts.detection import find_cases
from strokeseg.imaging.slices import AXES
from strokeseg.phantoms.dataset import write_phantoms
from strokeseg.records.config import NetworkConfig
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.training.inference import predict_batch
from strokeseg.training.network import build_network

_SEQUENCES = ("T1", "T2", "DWI", "FLAIR")
_LARGE, _QUICK_LARGE = (512, 512, 400), (256, 256, 200)
_SHARE_GOAL, _GB_GOAL = 0.85, 16.0
_CHILD = "--large-case"


def run(options: Options) -> PartResult:
    """Measure the share once a repeat, and memory once."""
    shares, seconds = [], []
    with tempfile.TemporaryDirectory(prefix="predict-case-") as place:
        folder = Path(place)
        write_phantoms(folder / "cases", cases=1, spacing_mm=2.0 if options.quick else 1.0, seed=0)
        (case,) = find_cases(folder / "cases", _SEQUENCES)
        for _ in range(options.times(3)):
            whole, inside = _time_case(case, folder / "out")
            shares.append(inside / whole)
            seconds.append(whole)
        shape = _QUICK_LARGE if options.quick else _LARGE
        sides = [str(side) for side in shape]
        tell(f"a case of {' x '.join(sides)} voxels ...")
        command = [sys.executable, "-m", "benchmarks.predict_case", _CHILD, place, *sides]
        large = json.loads(timed(command, options).output.splitlines()[-1])
    return PartResult(
        title="What does predicting one case take, apart from its networks?",
        method=(__doc__ or "").partition("\n\n")[2].partition("\n\npython")[0].replace("\n", " "),
        comparisons=(
            Comparison(
                what="share of time inside the networks",
                other=f"the goal of {_SHARE_GOAL:.0%}",
                unit="",
                ours=tuple(shares),
                theirs=(_SHARE_GOAL,) * len(shares),
                less_is_better=False,
            ),
            Comparison(
                what=f"largest resident set, {' x '.join(sides)} voxels",
                other=f"{_GB_GOAL:g} GB",
                unit="GB",
                ours=(large["gigabytes"],),
                theirs=(_GB_GOAL,),
                less_is_better=True,
            ),
        ),
        figures=(
            Figure(name="a SISS-size case, small U-Nets", unit="s", values=tuple(seconds)),
            Figure(name="the large case", unit="s", values=(large["seconds"],)),
        ),
    )


def _time_case(case: Case, output: Path) -> tuple[float, float]:
    """Segment a case and return the seconds of all of it and of those in the networks."""
    inside = 0.0

    def counted(predict: Callable[..., NDArray[np.float32]]) -> Callable[..., NDArray[np.float32]]:
        def timed(slices: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal inside
            start = time.perf_counter()
            found = predict(slices)
            inside += time.perf_counter() - start
            return found

        return timed

    networks = {
        axis: build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=4).eval()
        for axis in AXES
    }
    tool = _tool(networks)
    predictors = tuple(
        replace(predictor, predict=counted(predictor.predict))
        for predictor in tool.ensemble.predictors
    )
    tool = replace(tool, ensemble=replace(tool.ensemble, predictors=predictors))
    start = time.perf_counter()
    predict_case(tool, case, output)
    return time.perf_counter() - start, inside


def _tool(networks: Mapping[str, nn.Module]) -> Tool:
    def predictor(axis: str, network: nn.Module) -> Predictor:
        return Predictor(
            name=f"{axis}-0000",
            axis=axis,
            slice_size=None,
            predict=lambda slices: predict_batch(network, torch.from_numpy(slices))[:, 0].numpy(),
        )

    record = EnsembleRecord(
        name="measured",
        sequences=_SEQUENCES,
        members={axis: (f"{axis}-0000.safetensors",) for axis in networks},
        preparation_hash="none",
        code_version="none",
    )
    predictors = tuple(predictor(axis, network) for axis, network in networks.items())
    return Tool(
        ensemble=Ensemble(predictors=predictors, record=record),
        bundle=Path("measured.zip"),
        bundle_sha256="none",
        runtime="torch",
        code_version="none",
        reference=None,
    )


def _large_case(folder: Path, shape: tuple[int, int, int]) -> None:
    """Segment a case of an ellipsoid brain, and print what it took as JSON."""
    folder.mkdir(exist_ok=True)
    images = {}
    for number, sequence in enumerate(_SEQUENCES):
        generator = np.random.default_rng(number)
        axes = (np.linspace(-1.1, 1.1, side, dtype=np.float32) ** 2 for side in shape)
        x, y, z = np.ix_(*axes)
        brain = x + y + z < 1
        voxels = generator.integers(80, 120, size=shape[2], dtype=np.int16) * brain
        images[sequence] = folder / f"{sequence}.nii"
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), images[sequence])
    case = Case(name="large", patient="large", images=images, mask=None)
    # A new process would be measured with these arrays, had this one not forgotten them.
    del voxels, brain
    networks = {axis: nn.Conv2d(4, 1, 1).eval() for axis in AXES}
    for network in networks.values():
        nn.init.zeros_(network.weight)
        nn.init.ones_(network.bias)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    predict_case(_tool(networks), case, folder / "out")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in units of 1024 bytes.
    print(
        json.dumps(
            {"gigabytes": peak * 1024 / 1e9, "before": before * 1024 / 1e9, "seconds": seconds}
        )
    )


if __name__ == "__main__":
    if _CHILD in sys.argv:
        place, *sides = sys.argv[sys.argv.index(_CHILD) + 1 :]
        x, y, z = (int(side) for side in sides)
        _large_case(Path(place), (x, y, z))
    else:
        run_alone(run, __doc__)
