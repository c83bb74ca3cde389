"""Looking at something again and again while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watching(look: Callable[[], None], every_seconds: float) -> Iterator[None]:
    """Look in a thread, every so many seconds, for as long as the block takes."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_seconds):
            look()

    watcher = threading.Thread(target=watch, name="watching", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
