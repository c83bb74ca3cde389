"""Processes of this one's own, for work that Ray is not there for yet."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from threading import Thread


@contextmanager
def child_processes(most: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes as work is submitted to them, and end them with the block.

    Args:
        most: Processes at once.
    """
    # A forked child would inherit the locks of the caller's threads (torch's, Ray's).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(most, mp_context=context, initializer=_end_with_the_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """End this process when the one that started it has ended, however that came about.

    It would wait for its next work for ever where that one was killed.
    """

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()
