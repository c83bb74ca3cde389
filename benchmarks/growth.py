"""Whether a driver grows with its work: memory, open files, threads, temporary files.

  trials  a study of so many *stand-in* trials (benchmarks/overhead.py), one on each CPU, with the
          Ray and the log of `strokeseg search`
  cases   `strokeseg prepare` of so many simulated cases, coarse ones, in this process

Every row is what the driver has at that point: `own MB` is memory that it shares with nobody,
`files` are its open ones, `shared MB` what lies in /dev/shm, `temporary MB` what lies in the
folder for temporary files, which the benchmark makes for itself. `after` is when the work is
over and Ray has ended: what is there then stays until the process ends. What a run needs once,
such as libraries, is there before its first row.

python -m benchmarks.growth trials --count 1000
python -m benchmarks.growth cases --count 500
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import psutil
from ray import tune

from benchmarks.measuring import wrapped
from benchmarks.overhead import our_search
from benchmarks.stand_in import stand_in
from strokeseg import cli, prepare
from strokeseg.compute.allotment import Allotment
from strokeseg.compute.session import ray_session
from strokeseg.phantoms.dataset import SPACINGS_MM
from strokeseg.preparation import steps
from strokeseg.tuning.searcher import StudySearcher

EPOCHS = 4
SHARES = (0.0, 0.2, 0.5, 0.8)
SHARED = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("trials", "cases"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2, help="how often, in one process")
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(options.what, options.count, options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="grow-") as temporary:
        command = [sys.executable, "-m", "benchmarks.growth", options.what, "--only"]
        command += ["--count", str(options.count), "--rounds", str(options.rounds)]
        # Tempfile and Ray put all that they keep there.
        subprocess.run(command, env={**os.environ, "TMPDIR": temporary}, check=True)


def measure(what: str, count: int, rounds: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'':24s}  own MB  files  threads  shared MB  temporary MB")
    shared = size_mb(SHARED)
    with tempfile.TemporaryDirectory(dir=".") as name:
        if what == "cases":
            write_cases(Path(name) / "cases", count)
        for number in range(rounds):
            folder = Path(name).absolute() / str(number)
            folder.mkdir()
            tell = ProgressLines(f"round {number + 1}, ", count, shared)
            (run_trials if what == "trials" else run_cases)(folder, count, tell)
            gc.collect()
            tell("after")


class ProgressLines:
    """Prints a row at given shares of the work."""

    def __init__(self, title: str, count: int, shared_mb: float) -> None:
        self._title = title
        self._at = {round(share * count): share for share in SHARES}
        self._shared_mb = shared_mb
        self._process = psutil.Process()
        self._done = 0

    def __call__(self, label: str) -> None:
        """Print a row."""
        memory = self._process.memory_full_info().uss / 1e6
        print(
            f"{self._title + label:24s}  {memory:6.0f}  {self._process.num_fds():5d}  "
            f"{self._process.num_threads():7d}  {size_mb(SHARED) - self._shared_mb:9.0f}  "
            f"{size_mb(Path(tempfile.gettempdir())):12.1f}",
            file=sys.stderr,
            flush=True,
        )

    def count(self) -> None:
        """Note one more trial or case."""
        if (share := self._at.get(self._done)) is not None:
            self(f"{share:.0%}")
        self._done += 1


def size_mb(folder: Path) -> float:
    """What lies in a folder, in 10^6 bytes of disk or memory."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += 512 * path.lstat().st_blocks
        except OSError:
            # Others' files come and go.
            continue
    return found / 1e6


def run_trials(folder: Path, count: int, tell: ProgressLines) -> None:
    """Search with stand-in trials."""
    suggest: Callable[..., Any] = StudySearcher.suggest

    def counted(searcher: StudySearcher, trial_id: str) -> Any:
        tell.count()
        return suggest(searcher, trial_id)

    cpus = psutil.cpu_count() or 1
    with (
        cli.logging_to(folder / "search.log"),
        ray_session(),
        wrapped(StudySearcher, suggest=counted),
    ):
        trainable = tune.with_resources(
            tune.with_parameters(stand_in, epochs=EPOCHS), {"CPU": 1, "GPU": 0}
        )
        allotment = Allotment(cpus=1, gpus=0, concurrent=cpus)
        run, _ = our_search(folder, count, EPOCHS, trainable, allotment)
        run()
        tell("100%")


def write_cases(folder: Path, count: int) -> None:
    """Simulate cases in a process of their own."""
    command = (
        f"from pathlib import Path; from strokeseg.phantoms.dataset import write_phantoms; "
        f"write_phantoms(Path({str(folder)!r}), cases={count}, spacing_mm={SPACINGS_MM[1]}, "
        f"seed=0, workers={psutil.cpu_count() or 1})"
    )
    subprocess.run([sys.executable, "-c", command], check=True)


def run_cases(folder: Path, count: int, tell: ProgressLines) -> None:
    """Prepare the cases beside the folder."""
    config = folder / "growth.yaml"
    config.write_text(f"data: {{path: {folder.parent / 'cases'}}}\n")
    spread = steps.spread

    def reporting_spread(work: Any, cases: Any, show: Any, **how: Any) -> Any:
        part = "check" if isinstance(work, steps.CheckTask) else "slice"
        tell(f"before {part}")
        found = spread(work, cases, show, **how)
        tell(f"after {part}")
        return found

    output = StringIO()
    with wrapped(steps, spread=reporting_spread), redirect_stdout(output):
        code = prepare.main(["--experiment", str(config), "--storage", str(folder / "runs")])
    if code:
        raise SystemExit(f"prepare ended with {code}:\n{output.getvalue()}")


if __name__ == "__main__":
    main()
