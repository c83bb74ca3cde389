"""Peak memory of every process of a command, and of Ray's object store.

USS is what a process alone holds; PSS adds its share of what it has in common with others; RSS
counts all of that, such as Ray's object store, in every process. The sum of the PSS is what all of
the command's processes hold together. The object store is counted as what the processes have
touched of its memory (the PSS of its mappings in shared memory), since other sessions of Ray may
lie in /dev/shm as well. Linux only; sampled twice a second, so that shorter peaks go unseen.

As a part of the benchmarks it measures a small search of two trials side by side; alone, any
command:

python -m benchmarks.memory -- strokeseg run --storage /tmp/memory
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.part import Options, quiet_machine
from benchmarks.peers import CHECKOUT
from benchmarks.results import Comparison, Figure, PartResult
from benchmarks.siss_small import AXIS, our_command, place_experiment, prepare

_SECONDS_BETWEEN_SAMPLES = 0.5
_OBJECT_STORE = "/dev/shm/plasma"
_ASKED_GB, _SHOWN = 3.0, 5
_TRIALS, _EPOCHS, _SLICES, _QUICK_SPACING_MM = 4, 2, 96, 4.0
# What Ray and the command call themselves, by what it is; the rest is "Ray's others".
_ROLES = (("trial", "ray::"), ("driver", "strokeseg.search"), ("raylet", "raylet/raylet"))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a process holds, in bytes.

    Attributes:
        uss: Alone.
        pss: Alone, and its share of what it has in common with others.
        rss: All that it has, in common or not.
    """

    uss: int = 0
    pss: int = 0
    rss: int = 0


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The most that was seen while a command ran.

    Attributes:
        processes: By number and name of the process.
        together: PSS of all processes at one time, in bytes.
        object_store: Touched memory of Ray's object store, in bytes.
        exit_code: How the command ended.
    """

    processes: dict[tuple[int, str], Memory]
    together: int
    object_store: int
    exit_code: int


def main() -> None:
    peaks = watch(sys.argv[sys.argv.index("--") + 1 :])
    largest = sorted(peaks.processes.items(), key=lambda item: -item[1].rss)[:_SHOWN]
    print(f"exit code {peaks.exit_code}; the largest of {len(peaks.processes)} processes:")
    for (_, name), memory in largest:
        print(
            f"  USS {memory.uss / 1e9:.2f} GB, PSS {memory.pss / 1e9:.2f} GB, "
            f"RSS {memory.rss / 1e9:.2f} GB: {name}"
        )
    print(
        f"all at one time: {peaks.together / 1e9:.2f} GB; object store "
        f"{peaks.object_store / 1e9:.2f} GB"
    )


def run(options: Options) -> PartResult:
    """Watch a small search."""
    search = {
        **{"space": str(CHECKOUT / "search_spaces" / "light.yaml"), "trials": _TRIALS},
        **{"epochs": _EPOCHS, "slices_per_epoch": _SLICES},
        "confirm_trials": 0,
    }
    with tempfile.TemporaryDirectory(prefix="memory-") as place:
        experiment = place_experiment(
            Path(place),
            options.data,
            spacing_mm=_QUICK_SPACING_MM if options.quick else None,
            search=search,
        )
        prepare(experiment, options)
        with quiet_machine(options.lock):
            peaks = watch([*our_command("search", experiment), "--axis", AXIS], silent=True)
        slices = sum(file.stat().st_size for file in experiment.slices_folder.rglob("*.parquet"))
    if peaks.exit_code != 0:
        raise RuntimeError(f"the search must end with 0, got {peaks.exit_code}")
    return _result(peaks, slices)


def _result(peaks: Peaks, slices_bytes: int) -> PartResult:
    roles = {role: _largest(peaks, _is_of(mark)) for role, mark in _ROLES}
    others = [mark for _, mark in _ROLES]
    roles["largest of Ray's others"] = _largest(
        peaks, lambda name: not any(mark in name for mark in others)
    )
    figures = [
        Figure(name=f"{role}: {kind.upper()}", unit="GB", values=(getattr(memory, kind) / 1e9,))
        for role, memory in roles.items()
        for kind in ("uss", "pss", "rss")
    ]
    return PartResult(
        title="How much memory does a search take?",
        method=(
            f"{_TRIALS} trials of {_EPOCHS} epochs on siss-like slices ({slices_bytes / 1e9:.2f} "
            "GB of Parquet for three axes), as one command. Peaks of samples twice a second: USS "
            "is a process's own memory, PSS adds its share of what it has in common, RSS all of "
            "that. Of trials the largest one is reported. Together is the sum of the PSS of all "
            "processes at one time; the object store is what processes touched of its memory, "
            "by the PSS of its mappings."
        ),
        comparisons=(
            Comparison(
                what="largest process, RSS",
                other=f"the {_ASKED_GB:g} GB asked for",
                unit="GB",
                ours=(max(memory.rss for memory in peaks.processes.values()) / 1e9,),
                theirs=(_ASKED_GB,),
                less_is_better=True,
            ),
        ),
        figures=(
            *figures,
            Figure(name="object store", unit="GB", values=(peaks.object_store / 1e9,)),
            Figure(name="all processes together", unit="GB", values=(peaks.together / 1e9,)),
        ),
    )


def _is_of(mark: str) -> Callable[[str], bool]:
    return lambda name: mark in name


def _largest(peaks: Peaks, chosen: Callable[[str], bool]) -> Memory:
    found = [memory for (_, name), memory in peaks.processes.items() if chosen(name)]
    return _most(found)


def watch(command: Sequence[str], *, silent: bool = False) -> Peaks:
    """Run a command and watch its processes.

    Args:
        silent: Whether what it prints is thrown away.
    """
    output = subprocess.DEVNULL if silent else None
    running = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT)
    top = psutil.Process(running.pid)
    processes: dict[tuple[int, str], Memory] = {}
    together = object_store = 0
    while running.poll() is None:
        now = store = 0
        for process in [top, *_children(top)]:
            try:
                memory, stored = _memory_of(process)
                name = " ".join(process.cmdline()[:4])[:100] or process.name()
            except psutil.Error:
                continue
            key = (process.pid, name)
            processes[key] = _most([processes.get(key, Memory()), memory])
            now += memory.pss
            store += stored
        together, object_store = max(together, now), max(object_store, store)
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
    return Peaks(
        processes=processes,
        together=together,
        object_store=object_store,
        exit_code=running.returncode,
    )


def _memory_of(process: psutil.Process) -> tuple[Memory, int]:
    """Return a process's memory, and the part of its PSS that is Ray's object store."""
    maps = process.memory_maps(grouped=False)
    memory = Memory(
        uss=sum(one.private_clean + one.private_dirty for one in maps),
        pss=sum(one.pss for one in maps),
        rss=sum(one.rss for one in maps),
    )
    return memory, sum(one.pss for one in maps if one.path.startswith(_OBJECT_STORE))


def _most(memories: Iterable[Memory]) -> Memory:
    most = Memory()
    for one in memories:
        most = replace(
            most,
            uss=max(most.uss, one.uss),
            pss=max(most.pss, one.pss),
            rss=max(most.rss, one.rss),
        )
    return most


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
