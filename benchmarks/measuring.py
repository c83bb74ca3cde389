"""Measuring a process from within: its memory while it works, and time spent in its functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil


def own_mb(process: psutil.Process) -> float:
    """Return the memory that a process does not share, in 10^6 bytes."""
    used = process.memory_info()
    return float(used.rss - used.shared) / 1e6


def ray_workers_mb() -> list[float]:
    """Return the same of each of this process's Ray workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        # It may end between being found and being read.
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::"):
                found.append(own_mb(process))
    return found


@contextmanager
def wrapped(owner: Any, **functions: Callable[..., Any]) -> Iterator[None]:
    """Put timed versions in the place of a module's or class's functions, and put them back."""
    before = {name: getattr(owner, name) for name in functions}
    for name, function in functions.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(owner, name, function)
