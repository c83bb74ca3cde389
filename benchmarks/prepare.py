"""Cases a minute of `strokeseg prepare`, on real cases or on any number of simulated ones.

With --data, as a whole process and without Ray's start. With --simulated, a process for each
number of cases, each on phantoms as coarse as they come (6 mm): so little is left of the work
on a voxel that what grows with the number of cases shows. For each part it prints ms a case and
how many times that is the smallest number's, Ray's start left out:

  check    reading and measuring every case, a Ray task each
  files    hashing every file, in the driver
  audit    comparing every case with every other
  slice    reading, slicing and writing every case of the folds, a Ray task each; ms a sliced case

and the largest memory that the driver and any Ray worker had of their own. Two phantoms out of
millions of pairs may look alike at 6 mm: the audit's verdict is counted, not obeyed.

python -m benchmarks.prepare --data ../shared/data/siss-like
python -m benchmarks.prepare --simulated 28 280 2800
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import own_mb, ray_workers_mb, wrapped
from strokeseg.cli import logging_to
from strokeseg.phantoms.dataset import SPACINGS_MM, write_phantoms
from strokeseg.preparation import steps
from strokeseg.process.background_timer import background_timer
from strokeseg.records.config import DataConfig, ExperimentConfig
from strokeseg.records.experiment import Experiment

PARTS = ("check", "files", "audit", "slice")
SECONDS_BETWEEN_LOOKS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="siss-like")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data")
    what.add_argument("--simulated", type=int, nargs="+", metavar="CASES")
    what.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, help="of --data")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only)))
    elif options.simulated:
        print_growth(options.simulated)
    else:
        for _ in range(options.repeats):
            print_whole(options.experiment, options.data)


def print_whole(experiment: str, data: str) -> None:
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-m", "strokeseg.prepare", "--storage", storage]
        command += ["--experiment", experiment, "--data", data]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    cases = int(re.search(r"Prepared (\d+) cases", done.stdout).group(1))
    working = sum(
        int(number)
        for number in re.findall(
            r"(?:Checking cases|Slicing): (?:\d+)/(?:\d+), (\d+) s\n", done.stderr + "\n"
        )
    )
    print(
        f"{cases} cases in {seconds:.1f} s as a whole process: {60 * cases / seconds:.0f} "
        f"cases a minute (checking and slicing alone: about {working} s)"
    )


def print_growth(numbers: list[int]) -> None:
    print("       ms a case (times the first row's):                            own memory, MB:")
    print(
        " cases simulate" + "".join(f"{part:>13}" for part in (*PARTS, "all")) + "   driver worker"
    )
    first: dict[str, float] = {}
    for cases in numbers:
        with tempfile.TemporaryDirectory() as name:
            start = time.perf_counter()
            write_phantoms(
                Path(name) / "cases",
                cases=cases,
                spacing_mm=SPACINGS_MM[1],
                seed=0,
                workers=psutil.cpu_count() or 1,
            )
            simulated = 1000 * (time.perf_counter() - start) / cases
            command = [sys.executable, "-m", "benchmarks.prepare", "--only", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        counts = {"slice": found["sliced"]}
        per_case = {part: 1000 * found[part] / counts.get(part, cases) for part in (*PARTS, "all")}
        first = first or per_case
        cells = [f"{per_case[part]:6.1f} ({per_case[part] / first[part]:.2f})" for part in per_case]
        print(
            f"{cases:6d} {simulated:8.0f}" + "".join(f"{cell:>13}" for cell in cells),
            f" {found['driver_mb']:6.0f} {found['worker_mb']:6.0f}"
            f"   {60_000 / per_case['all']:.0f} cases a minute, {found['leaks']} alike",
            flush=True,
        )


def measure(folder: Path) -> dict[str, float]:
    """Prepare the cases in a folder; return seconds by part, and megabytes."""
    spent: dict[str, float] = {}
    facts: dict[str, float] = {}
    spread, audit, file_facts = steps.spread, steps.audit_leaks, steps.file_facts

    def timed_spread(work: Any, cases: Any, show: Any, **how: Any) -> Any:
        part = "check" if isinstance(work, steps.CheckTask) else "slice"
        if part == "slice":
            facts["sliced"] = len(cases)
        return timed(spent, part, lambda: spread(work, cases, show, **how))

    def timed_audit(*arguments: Any) -> Any:
        found = timed(spent, "audit", lambda: audit(*arguments))
        facts["leaks"] = len(found.leaks)
        return found

    def timed_facts(path: Path) -> Any:
        return timed(spent, "files", lambda: file_facts(path))

    experiment = Experiment(
        name="growth",
        config=ExperimentConfig(data=DataConfig(path="cases")),
        config_path=folder / "experiment.yaml",
        folder=folder / "growth",
        data_path=folder / "cases",
    )
    with (
        wrapped(
            steps,
            spread=timed_spread,
            audit_leaks=timed_audit,
            file_facts=timed_facts,
            refuse_resemblances=lambda leaks, table: None,
        ),
        logging_to(folder / "prepare.log"),
        steps.ray_session(),
        watching_memory() as memory,
    ):
        # Starting the workers takes seconds, whatever the number of cases.
        first = steps.find_cases(experiment)[:8]
        spread(steps.CheckTask(experiment.config), first, lambda *progress: None)
        prepare = lambda: steps.prepare(  # noqa: E731
            experiment, skip_invalid=False, overwrite=False, progress=silent
        )
        timed(spent, "all", prepare)
    return {**spent, **facts, **memory}


def timed(spent: dict[str, float], part: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    done = work()
    spent[part] = spent.get(part, 0.0) + time.perf_counter() - start
    return done


@contextmanager
def silent(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show no progress."""
    yield lambda done, total, note: None


@contextmanager
def watching_memory() -> Iterator[dict[str, float]]:
    """Note the most memory that this process and any Ray worker have, what is shared left out."""
    largest = {"driver_mb": 0.0, "worker_mb": 0.0}
    driver = psutil.Process()

    def look() -> None:
        largest["driver_mb"] = max(largest["driver_mb"], own_mb(driver))
        largest["worker_mb"] = max(largest["worker_mb"], *ray_workers_mb(), 0.0)

    with background_timer(look, SECONDS_BETWEEN_LOOKS):
        yield largest


if __name__ == "__main__":
    main()
