"""Cases a minute of `strokeseg prepare`, as a whole process and without Ray's start.

python -m benchmarks.prepare --data ../shared/data/siss-like
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="siss-like")
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as storage:
            command = [sys.executable, "-m", "strokeseg.prepare", "--storage", storage]
            command += ["--experiment", options.experiment, "--data", options.data]
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


if __name__ == "__main__":
    main()
