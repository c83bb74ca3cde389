"""A timer that calls a function in a thread while a block of code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_timer(function: Callable[[], None], every_seconds: float) -> Iterator[None]:
    """Call a function in a thread, every so many seconds, for as long as the block takes."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_seconds):
            function()

    timer = threading.Thread(target=run, name="background_timer", daemon=True)
    timer.start()
    try:
        yield
    finally:
        over.set()
        timer.join()
