"""How long a new user waits for the first epoch of `strokeseg run`, once slices are prepared.

Prepares the experiment, removes what was searched, runs the command again until a trial has
finished its first epoch, and ends it. Prints the seconds from the command's start until that epoch
began and until it was finished.

python -m benchmarks.first_epoch --storage /tmp/first-epoch
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOK_SECONDS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storage", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    where = ["--storage", str(options.storage)]
    subprocess.run([sys.executable, "-m", "strokeseg.prepare", *where], check=True)
    search = options.storage / "demo" / "search"
    for _ in range(options.repeats):
        shutil.rmtree(search, ignore_errors=True)
        began, finished = first_epoch([sys.executable, "-m", "strokeseg.run", *where], search)
        print(
            f"first epoch: began after {began:.1f} s, finished after {finished:.1f} s", flush=True
        )


def first_epoch(command: list[str], search: Path) -> tuple[float, float]:
    """Run a search until a trial has finished an epoch; return when that began and finished."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            seconds = [
                found for path in search.glob("*/journal.log") if (found := epoch_seconds(path))
            ]
            if seconds:
                finished = time.perf_counter() - started
                return finished - seconds[0], finished
            time.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"the command ended with {process.returncode} before an epoch")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def epoch_seconds(journal: Path) -> float | None:
    """Return how long the first epoch that a journal records took."""
    for line in journal.read_text().splitlines():
        if '"progress"' in line and line.endswith("}"):
            progress = json.loads(line).get("user_attr", {}).get("progress", {})
            if progress.get("epoch") == 1:
                return float(progress["seconds"])
    return None


if __name__ == "__main__":
    main()
