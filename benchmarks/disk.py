"""What a search leaves on disk, and what it takes while it runs.

A search of ours, in a private Ray session as a command starts it, whose trials train nothing
but leave weights and a state after every epoch as trials do. Told are the bytes of each part
of the search's folder, the most that lay there at once, and what is new afterwards in the
places where Ray and Tune put files.

python -m benchmarks.disk --trials 200
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune

from benchmarks.overhead import experiment_in, our_search
from benchmarks.stand_in import metrics_of
from strokeseg import cli
from strokeseg.experiment import trial_state, trial_weights
from strokeseg.files import write_text
from strokeseg.ray_session import ray_session
from strokeseg.tuning.allotment import Allotment
from strokeseg.watching import watching

PARTS = ("journal.log", "leaderboard.csv", "tensorboard", "trials", "tune")
OUTSIDE = (Path(tempfile.gettempdir()), Path("/dev/shm"), Path.home() / "ray_results")
SLOTS = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--weights-mb", type=float, default=1.0)
    options = parser.parse_args()
    before = names_outside()
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    try:
        measure(folder, options)
    finally:
        shutil.rmtree(folder)
    left = sorted(str(path) for path in names_outside() - before - {folder})
    print(f"new in {', '.join(map(str, OUTSIDE))}: {', '.join(left) or 'nothing'}")
    print("(other processes of this machine write there too)")


def measure(folder: Path, options: argparse.Namespace) -> None:
    experiment = experiment_in(folder)
    search = experiment.search_folder("axial")
    trials_folder = experiment.trials_folder("axial")
    trainable = tune.with_resources(
        tune.with_parameters(
            leave_files,
            epochs=options.epochs,
            trials_folder=trials_folder,
            characters=int(options.weights_mb * 1e6),
        ),
        {"CPU": 1},
    )
    allotment = Allotment(cpus=1, gpus=0, concurrent=SLOTS)
    with cli.logging_to(experiment.log_folder / "search.log"), ray_session():
        run, reports = our_search(folder, options.trials, options.epochs, trainable, allotment)
        with watching_parts(search) as peaks:
            run()
    print(f"{options.trials} trials, {reports()} epochs, weights of {options.weights_mb} MB")
    cli.print_table(
        "bytes of a search",
        ("part", "after", "a trial", "most at once", "files after"),
        [
            (
                part.name,
                f"{size_of(part):,}",
                f"{size_of(part) / options.trials:,.0f}",
                f"{peaks.get(part.name, 0):,}",
                f"{sum(1 for path in part.rglob('*') if path.is_file()) or int(part.is_file())}",
            )
            for part in (*(search / name for name in PARTS), experiment.log_folder)
        ],
    )


def leave_files(
    proposal: Mapping[str, Any], *, epochs: int, trials_folder: Path, characters: int
) -> None:
    """Report as a trial does, leaving weights at every epoch that is better, and a state."""
    number = proposal["number"]
    score = (number * 7919 % 1000) / 1000
    for epoch in range(1, epochs + 1):
        write_text(trial_weights(trials_folder, number), "w" * characters)
        write_text(trial_state(trials_folder, number), "s" * 3 * characters)
        tune.report(metrics_of(epoch, dice=score * epoch / epochs))


@contextmanager
def watching_parts(search: Path) -> Iterator[dict[str, int]]:
    """Take the largest size of each part, four times a second."""
    peaks: dict[str, int] = {}

    def look() -> None:
        for name in PARTS:
            peaks[name] = max(peaks.get(name, 0), size_of(search / name))

    with watching(look, 0.25):
        yield peaks


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files below a folder, as far as they stay while counting."""
    found = [path, *(Path(folder, name) for folder, _, names in os.walk(path) for name in names)]
    sizes = 0
    for file in found:
        with suppress(FileNotFoundError):
            sizes += file.lstat().st_size if file.is_file() else 0
    return sizes


def names_outside() -> set[Path]:
    return {path for place in OUTSIDE if place.is_dir() for path in place.iterdir()}


if __name__ == "__main__":
    main()
