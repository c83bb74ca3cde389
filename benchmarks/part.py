"""What parts share: their options, timed commands, and a way to be run alone.

A part is a module with a function `run(options) -> PartResult` and a docstring that says what is
compared; `benchmarks/__main__.py` lists them. A *command* is a whole process. Where others use
the machine too, `--lock FILE` holds a file's lock, as flock(1) does, around each command that is
timed, and no longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from benchmarks.peers import CHECKOUT, DEFAULT_PEERS
from benchmarks.report import render_part
from benchmarks.results import PartResult

_DATA = CHECKOUT.parent / "shared" / "data" / "siss-like"
_ENDING_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and with what.

    Attributes:
        data: Folder of cases in the layout of ISLES 2015 SISS.
        peers: The peers' environment.
        quick: Whether to measure small sizes, once.
        repeats: How often to measure both sides; None for what the part thinks best.
        lock: File to lock around each timed command.
    """

    data: Path = _DATA
    peers: Path = DEFAULT_PEERS
    quick: bool = False
    repeats: int | None = None
    lock: Path | None = None

    def times(self, usual: int) -> int:
        """How often to measure."""
        return self.repeats or (1 if self.quick else usual)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A command that went well.

    Attributes:
        started: When, in seconds since 1970.
        seconds: Wall time of the whole process.
        output: What it printed to standard output.
    """

    started: float
    seconds: float
    output: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all parts take."""
    parser.add_argument("--data", type=Path, default=_DATA, help="cases in the SISS layout")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="the peers' environment")
    parser.add_argument("--quick", action="store_true", help="small sizes, once")
    parser.add_argument("--repeats", type=int, help="how often to measure, in place of the part's")
    parser.add_argument("--lock", type=Path, help="file to lock around each timed command")


def parse_options(parser: argparse.ArgumentParser) -> tuple[Options, argparse.Namespace]:
    """Return the options that all parts take, and all that were given."""
    given = parser.parse_args()
    names = ("data", "peers", "quick", "repeats", "lock")
    return Options(**{name: getattr(given, name) for name in names}), given


def run_alone(run: Callable[[Options], PartResult], manual: str | None) -> None:
    """Run one part and print its tables; no file of results is touched."""
    parser = argparse.ArgumentParser(
        description=manual, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    options, _ = parse_options(parser)
    print(render_part(run(options)))


@contextmanager
def one_thread() -> Iterator[torch.device]:
    """Compute on one CPU thread, and give the device: the GPU where there is one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield torch.device("cuda" if torch.cuda.is_available() else "cpu")
    finally:
        torch.set_num_threads(threads)


@contextmanager
def quiet_machine(lock: Path | None) -> Iterator[None]:
    """Hold the lock, where there is one, for the length of a measurement."""
    if lock is None:
        yield
        return
    with FileLock(lock):
        yield


def timed(
    command: Sequence[str], options: Options, environment: Mapping[str, str] | None = None
) -> Timed:
    """Run a command to its end and take its time.

    Args:
        environment: Variables besides this process's own.

    Raises:
        RuntimeError: When it fails, with the end of its output.
    """
    with quiet_machine(options.lock):
        started, start = time.time(), time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
        )
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        end = (done.stdout + done.stderr)[-_ENDING_CHARACTERS:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{end}")
    return Timed(started=started, seconds=seconds, output=done.stdout)


def tell(text: str) -> None:
    """Say what is being done, on standard error."""
    print(text, file=sys.stderr, flush=True)
