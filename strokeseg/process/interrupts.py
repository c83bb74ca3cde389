"""Ctrl-C and SIGTERM that nothing swallows.

Python raises KeyboardInterrupt wherever the main thread happens to be: in a callback of a library
or in a destructor it is printed and forgotten. Ray Tune hears the first Ctrl-C in place of
everybody else, even when its search is long over. A command therefore notes that one came, and
raises it again at its next sign of progress and at its end.

SIGTERM is what Slurm, systemd, Docker and Kubernetes send. Ray sets handlers of its own for it as
it starts and ends, some of them below Python, where they abort the process. So the process blocks
it, a thread waits for it, and passes it to the main thread as SIGUSR1, which Tune takes for Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from strokeseg.errors import UserError

_LATE_SECONDS = 0.3
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Those that came since the command began. Signals come to the process as a whole.
_came: list[signal.Signals] = []
# What this process blocks, one that it starts does not.
os.register_at_fork(
    after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
)


class Stopped(KeyboardInterrupt):
    """A signal ended the command; its text says so.

    Attributes:
        code: The exit code that shells give to whoever ends by that signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__("terminated" if number is signal.SIGTERM else "interrupted")
        self.code = 128 + number


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Note Ctrl-C and SIGTERM for as long as the block takes.

    Nothing changes in another thread than the main one, nor for a signal that whoever started
    this process has it ignore, as shells do with Ctrl-C in the background.

    Raises:
        Stopped: At the end of a block in which a signal came, whatever else it may raise: what
            fails after a signal fails for it.
    """
    try:
        with _hearing():
            try:
                yield
            except UserError:
                check_interrupt()
                raise
            except Exception:
                if stop := stopped_by_now():
                    raise stop from None
                raise
            check_interrupt()
    except KeyboardInterrupt as interrupt:
        # Where it came in code that `exec` ran, as of a dataclass, `python -m` would end by SIGINT,
        # whatever the exit code, unless `exec` runs again.
        exec("")
        raise stopped() or Stopped(signal.SIGINT) from interrupt
    finally:
        _came.clear()


@contextmanager
def lending_interrupts_to_tune() -> Iterator[None]:
    """Let a search of Ray Tune's hear the first signal, note it, and take the next ones back.

    Tune ends its search when it hears one, and then, but only then, puts back whoever heard
    Ctrl-C before it. Where Ctrl-C is ignored, Tune is not to hear it either.
    """
    before = _handlers()
    ours = before.get(signal.SIGINT)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "0" if ours else "1"
    try:
        yield
        if ours and signal.getsignal(signal.SIGINT) is ours:
            _came.append(signal.SIGINT)
    finally:
        _set(before)


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Hold a signal that comes during the block back until its end, which must not wait long."""
    before = _handlers()
    held: list[int] = []
    _set(dict.fromkeys(before, lambda number, frame: held.append(number)))
    try:
        yield
    finally:
        _set(before)
    for number in held[:1]:
        before[signal.Signals(number)](number, None)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if a signal came since the command began."""
    if stop := stopped():
        raise stop


def stopped() -> Stopped | None:
    """Return what the first signal that came since the command began ends it with."""
    return Stopped(_came[0]) if _came else None


def stopped_by_now() -> Stopped | None:
    """Return what `stopped` does, after a moment.

    A signal for all processes of a command may reach another one first, whose end this one sees.
    """
    if not _came:
        time.sleep(_LATE_SECONDS)
    return stopped()


@contextmanager
def _hearing() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    ours: dict[signal.Signals, Callable[..., None]] = {
        signal.SIGINT: _interrupt,
        signal.SIGTERM: _terminate,
        signal.SIGUSR1: _interrupt,
    }
    _set({number: ours[number] for number in before})
    try:
        if signal.SIGTERM in before:
            with _waiting_for_sigterm():
                yield
        else:
            yield
    finally:
        _set(before)


@contextmanager
def _waiting_for_sigterm() -> Iterator[None]:
    over = threading.Event()

    def wait() -> None:
        while signal.sigwait({signal.SIGTERM}) and not over.is_set():
            _terminate()

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    waiting = threading.Thread(target=wait, name="waiting for SIGTERM", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        assert waiting.ident is not None
        signal.pthread_kill(waiting.ident, signal.SIGTERM)
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _terminate(*_: object) -> None:
    """Note SIGTERM and pass the first one on; it may come to threads older than the command."""
    if signal.SIGTERM not in _came:
        _came.append(signal.SIGTERM)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _came.append(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
    raise KeyboardInterrupt


def _handlers() -> dict[signal.Signals, Any]:
    """The handlers in Python of the signals that are heard; none in another thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _set(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
