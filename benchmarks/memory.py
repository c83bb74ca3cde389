"""Peak memory of every process of a command, sampled four times a second.

USS is what a process alone holds; RSS also counts pages shared with others, such as Ray's
object store.

python -m benchmarks.memory -- strokeseg run --storage /tmp/memory
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil


def main() -> None:
    command = sys.argv[sys.argv.index("--") + 1 :]
    running = subprocess.Popen(command)
    top = psutil.Process(running.pid)
    peaks: dict[tuple[int, str], tuple[int, int]] = {}
    while running.poll() is None:
        for process in [top, *_children(top)]:
            try:
                memory = process.memory_full_info()
                name = " ".join(process.cmdline()[:3])[:70] or process.name()
            except psutil.Error:
                continue
            uss, rss = peaks.get((process.pid, name), (0, 0))
            peaks[process.pid, name] = max(uss, memory.uss), max(rss, memory.rss)
        time.sleep(0.25)
    print(f"exit code {running.returncode}; the five largest of {len(peaks)} processes:")
    for (_, name), (uss, rss) in sorted(peaks.items(), key=lambda item: -item[1][1])[:5]:
        print(f"  USS {uss / 1e9:.2f} GB, RSS {rss / 1e9:.2f} GB: {name}")


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
