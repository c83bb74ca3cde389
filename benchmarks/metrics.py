"""Scores of a case: all of ours against MONAI's HD95, ASSD and Dice of the same pair.

Pairs of masks of SISS's size, 230 x 230 x 154 voxels of 1 mm: one lesion of 55 ml and a prediction
with another border, many lesions all over the volume, and the one lesion with lone voxels
everywhere, which no box can cut away. CPU seconds of all threads, each side in a process of its
own, in turn. Ours counts lesions as well. That both saw the same is checked by Dice and ASSD;
HD95 differs by definition: ours pools both directions, MONAI takes the larger.

python -m benchmarks.metrics
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.metric_methods import METHODS
from benchmarks.part import Options, run_alone, tell, timed
from benchmarks.peers import CHECKOUT, missing, peer_python
from benchmarks.results import Comparison, PartResult

TITLE = "How fast are the scores of a case, against MONAI's?"
SHAPE, QUICK_SHAPE = (230, 230, 154), (115, 115, 77)
SPACING_MM = (1.0, 1.0, 1.0)
TARGET = 1 / 8
_LONE_SHARE = 2e-4
OURS, THEIRS = METHODS

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def run(options: Options) -> PartResult:
    """Score every pair with both, round after round."""
    if reason := missing(options.peers):
        return PartResult(title=TITLE, method="", left_out=(reason,))
    pairs = make_pairs(QUICK_SHAPE if options.quick else SHAPE)
    seconds: dict[tuple[str, str], list[float]] = {
        (pair, method): [] for pair in pairs for method in METHODS
    }
    with tempfile.TemporaryDirectory(prefix="metrics-") as place:
        files = {name: _save(pair, Path(place) / f"{name}.npz") for name, pair in pairs.items()}
        for _ in range(options.times(3)):
            for name, file in files.items():
                reported = {method: _run_method(method, file, options) for method in METHODS}
                _check_same(name, reported)
                for method, of in reported.items():
                    seconds[name, method].append(of["cpu_seconds"])
                    tell(f"metrics: {name}: {method} took {of['cpu_seconds']:.3f} s")
    return PartResult(
        title=TITLE,
        method=" ".join((__doc__ or "").split("\n\n")[1].split()),
        comparisons=tuple(
            Comparison(
                what=f"all scores, {name}",
                other="MONAI's HD95, ASSD and Dice",
                unit="CPU s",
                ours=tuple(seconds[name, OURS]),
                theirs=tuple(seconds[name, THEIRS]),
                less_is_better=True,
                target=TARGET,
            )
            for name in pairs
        ),
    )


def make_pairs(shape: tuple[int, int, int]) -> dict[str, Pair]:
    """Return truth and prediction of every kind, by its name."""
    generator = np.random.default_rng(0)
    coarse, fine = (_noise(generator, shape, width) for width in (6.0, 3.0))
    places = np.indices(shape, sparse=True)
    # 0 at the lesion's centre, 1 on its surface, but for the noise.
    depth = sum(
        ((place - side * at) / (side * 0.12)) ** 2
        for place, side, at in zip(places, shape, (0.35, 0.5, 0.5), strict=True)
    )
    lesion, prediction = depth + 0.5 * coarse < 1, depth + 0.5 * coarse + 0.25 * fine < 1
    return {
        "one lesion": (lesion, prediction),
        "many lesions": (coarse > 2.2, coarse + 0.4 * fine > 2.2),
        "lone voxels": (lesion, prediction | (generator.random(shape) < _LONE_SHARE)),
    }


def _noise(
    generator: np.random.Generator, shape: tuple[int, int, int], width: float
) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(generator.standard_normal(shape, dtype=np.float32), width)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _save(pair: Pair, file: Path) -> Path:
    truth, prediction = (mask.astype(np.uint8) for mask in pair)
    np.savez_compressed(file, truth=truth, prediction=prediction, spacing_mm=SPACING_MM)
    return file


def _run_method(method: str, file: Path, options: Options) -> dict[str, Any]:
    python = sys.executable if method == OURS else str(peer_python(options.peers))
    command = [python, "-m", "benchmarks.metric_methods", method, str(file)]
    done = timed(command, options, {"PYTHONPATH": str(CHECKOUT)})
    reported: dict[str, Any] = json.loads(done.output.strip().splitlines()[-1])
    return reported


def _check_same(name: str, reported: dict[str, dict[str, Any]]) -> None:
    for score in ("dice", "assd_mm"):
        ours, theirs = (reported[method]["scores"][score] for method in (OURS, THEIRS))
        if not np.isclose(ours, theirs, rtol=1e-4):
            raise RuntimeError(f"{name}: {score} must be equal, got {ours} and {theirs}")


if __name__ == "__main__":
    run_alone(run, __doc__)
