"""A quiet Ray for as long as a command needs one.

Where a cluster is named (`RAY_ADDRESS`, as `ray job submit` sets it) it is joined;
elsewhere a private one starts on this machine and ends with the command. Ray's own words
go to its session folder and, by `cli.logging_to`, to the command's log.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import ray
from ray.data import DataContext

from strokeseg.errors import UserError

_log = logging.getLogger(__name__)


@contextmanager
def _keeping_interrupts() -> Iterator[None]:
    """Raise a Ctrl-C that comes while Ray starts only when it has: Ray swallows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        ray.shutdown()
        raise KeyboardInterrupt


@contextmanager
def ray_session() -> Iterator[None]:
    """Start or join Ray, unless this process has done so already, and leave it at the end."""
    if ray.is_initialized():
        yield
        return
    # Without an explicit "local", Ray joins any cluster that it finds on this machine.
    address = None if os.environ.get("RAY_ADDRESS") else "local"
    ray_logger = logging.getLogger("ray")
    handlers = list(ray_logger.handlers)
    said = io.StringIO()
    try:
        with redirect_stderr(said), _keeping_interrupts():
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                **({} if address is None else {"include_dashboard": False}),
            )
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: no Ray answers there ({error}); "
            "correct it, or unset it to use this machine alone"
        ) from None
    # Ray adds a handler of its own for the terminal while it starts.
    ray_logger.handlers = handlers
    _log.info("%s", said.getvalue())
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    try:
        yield
    finally:
        ray.shutdown()
