"""Slices a second of others' ways to feed a network, on the same slices, and their limit.

The axial slices of the siss-like cases as `strokeseg prepare` writes them, batches of 16, every
method in a process of its own and in turn, so that other load falls on all of them; see
feed_methods.py for each. All give float32. MONAI and nnU-Net augment as they do by default; the
limit is to index one tensor that lies in memory. nnU-Net's cases are rewritten in its own files.

python -m benchmarks.feed_peers
python -m benchmarks.feed_peers --slices runs/siss-like/prepared/slices
python -m benchmarks.feed_peers --methods "MONAI CacheDataset, 0 workers"
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.feed_methods import BATCH, LIMIT, METHODS, Method
from benchmarks.part import Options, add_options, parse_options, tell, timed
from benchmarks.peers import CHECKOUT, missing, peer_python
from benchmarks.report import render_part
from benchmarks.results import Comparison, Figure, PartResult
from benchmarks.siss_small import AXIS, place_experiment, prepare, read_slices

LIMIT_TARGET = 0.8
SECONDS, QUICK_SECONDS, QUICK_CASES = 4.0, 2.0, 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--slices", type=Path, help="prepared slices, to prepare none")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options, given = parse_options(parser)
    print(render_part(run(options, slices_folder=given.slices, names=given.methods)))


def run(
    options: Options, slices_folder: Path | None = None, names: list[str] | None = None
) -> PartResult:
    """Time every method, round after round."""
    chosen = {name: METHODS[name] for name in names or METHODS}
    reason = missing(options.peers)
    ready = {name: method for name, method in chosen.items() if not (method.peer and reason)}
    with tempfile.TemporaryDirectory(prefix="feeds-") as place:
        folder = Path(place)
        if slices_folder is None:
            cases = QUICK_CASES if options.quick else None
            experiment = place_experiment(folder, options.data, cases=cases)
            prepare(experiment, options)
            slices_folder = experiment.slices_folder
        size = save_slices(slices_folder, folder)
        speeds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(options.times(2)):
            for name, method in ready.items():
                speeds[name].append(slices_per_second(name, method, folder, options))
                tell(f"feed_peers: {name}: {speeds[name][-1]:,.0f} slices/s")
    return PartResult(
        title="How many slices a second does the feed give, and how many do others' loaders?",
        method=(
            f"{size}, batches of {BATCH}, no network beside it. Each method in a process of its "
            "own, in turn. Augmented are those that say so, each with its project's own "
            "augmentation. Ray Data starts from scratch each epoch, which is counted."
        ),
        comparisons=tuple(_comparisons(speeds)),
        figures=tuple(
            Figure(name=name, unit="slices/s", values=tuple(values))
            for name, values in speeds.items()
        ),
        reference=LIMIT,
        left_out=(f"MONAI and nnU-Net: {reason}",) if len(ready) < len(chosen) else (),
    )


def save_slices(slices_folder: Path, folder: Path) -> str:
    """Write what feed_methods.py reads; return how many slices of what shape."""
    parquet = slices_folder.absolute() / f"axis={AXIS}"
    folds = sorted(
        int(path.name.removeprefix("fold="))
        for path in parquet.glob("fold=*")
        if path.name.removeprefix("fold=").isdecimal()
    )
    images, masks, cases = read_slices(slices_folder, tuple(folds))
    for name, array in (("images", images), ("masks", masks), ("cases", cases)):
        np.save(folder / f"{name}.npy", array)
    # Ray Data shall read the same slices, not those of the test cases.
    (folder / "parquet").mkdir()
    for fold in folds:
        for file in (parquet / f"fold={fold}").glob("*.parquet"):
            (folder / "parquet" / f"{fold}-{file.name}").symlink_to(file)
    return f"{len(images)} slices of {' x '.join(map(str, images.shape[1:]))}"


def slices_per_second(name: str, method: Method, folder: Path, options: Options) -> float:
    """Run one method in its environment."""
    python = str(peer_python(options.peers)) if method.peer else sys.executable
    seconds = str(max(QUICK_SECONDS if options.quick else SECONDS, method.least_seconds))
    command = [python, "-m", "benchmarks.feed_methods", name, str(folder), "--seconds", seconds]
    done = timed(command, options, {"PYTHONPATH": str(CHECKOUT)})
    reported = json.loads(done.output.strip().splitlines()[-1])
    if reported["method"] != name:
        raise RuntimeError(f"{name} must tell of itself, got {reported}")
    return float(reported["slices_per_second"])


def _comparisons(speeds: dict[str, list[float]]) -> list[Comparison]:
    """Ours against each of the others that do as much: augmented, or not."""
    return [
        Comparison(
            what=mine,
            other=other,
            unit="slices/s",
            ours=tuple(speeds[mine]),
            theirs=tuple(speeds[other]),
            less_is_better=False,
            target=LIMIT_TARGET if other == LIMIT else 1.0,
        )
        for mine in speeds
        for other in speeds
        if METHODS[mine].ours
        and not METHODS[other].ours
        and METHODS[mine].augmented == METHODS[other].augmented
    ]


if __name__ == "__main__":
    main()
