"""Processes of this one's own, for work that Ray is not there for yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any


@contextmanager
def child_processes(most: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes as work is submitted to them, and end them with the block.

    A block that an exception ends does not wait for the work that is begun.

    Args:
        most: Processes at once.
    """
    others = set(multiprocessing.active_children())
    pool = _Pool(most)
    completed = False
    try:
        yield pool
        completed = True
    finally:
        if not completed:
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
        pool.shutdown(cancel_futures=True)


class _Pool(ProcessPoolExecutor):
    """A pool whose processes leave Ctrl-C to this one."""

    def __init__(self, most: int) -> None:
        # A forked child would inherit the locks of the caller's threads (torch's, Ray's).
        context = multiprocessing.get_context("spawn")
        with _interrupts_blocked():
            super().__init__(most, mp_context=context, initializer=_begin)

    def submit(self, *work: Any, **options: Any) -> Any:
        with _interrupts_blocked():
            return super().submit(*work, **options)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        # The tracker of the pool's resources, which starts with it, lets SIGTERM through.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin() -> None:
    """End this process when the one that started it has ended, however that came about.

    It would wait for its next work for ever where that one was killed.
    """

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()
    # The pool's own way to end it, which a command blocks.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
