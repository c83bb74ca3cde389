"""Ctrl-C that nothing swallows.

Python raises KeyboardInterrupt wherever the main thread happens to be: in a callback of a library
or in a destructor it is printed and forgotten. Ray Tune hears the first Ctrl-C in place of
everybody else, even when its search is long over. A command therefore notes that one came, and
raises it again at its next sign of progress and at its end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Signals come to the process as a whole.
_came = threading.Event()


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Note Ctrl-C for as long as the block takes, and raise it at the end if nothing else did.

    Nothing changes in another thread than the main one, and where whoever started this process
    has it ignore Ctrl-C, as shells do in the background.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _hears(before):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        check_interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
        _came.clear()


@contextmanager
def lending_interrupts_to_tune() -> Iterator[None]:
    """Let a search of Ray Tune's hear the first Ctrl-C, note it, and take the next ones back.

    Tune ends its search when it hears one, and then, but only then, puts back whoever heard
    before it. Where Ctrl-C is ignored, Tune is not to hear it either.
    """
    before = signal.getsignal(signal.SIGINT)
    hears = _hears(before)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "0" if hears else "1"
    if not hears:
        yield
        return
    try:
        yield
        if signal.getsignal(signal.SIGINT) is before:
            _came.set()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Hold a Ctrl-C that comes during the block back until its end, which must not wait long."""
    before = signal.getsignal(signal.SIGINT)
    if not _hears(before):
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if a Ctrl-C came since the command began."""
    if _came.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _came.set()
    raise KeyboardInterrupt


def _hears(handler: object) -> bool:
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and handler is not signal.SIG_IGN
