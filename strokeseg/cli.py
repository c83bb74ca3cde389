"""What the commands share: options, log, progress, one-line errors, exit codes.

Exit code 0 is done, 1 some cases failed, 2 the user can mend it (one line says how),
130 interrupted, 143 terminated by SIGTERM. Anything else is our bug and shows its traceback.

Commands, and this module, import at the top only what parsing their options takes, and the rest
in the functions that work: `--help` and a wrong option need not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from strokeseg.errors import UserError, printable
from strokeseg.process.background_timer import background_timer
from strokeseg.process.interrupts import Stopped, check_interrupt, heeding_interrupts
from strokeseg.storage.files import storage_fault, unwritable
from strokeseg.storage.remote_copy import RemoteCopy

if TYPE_CHECKING:
    from rich.progress import Progress

    from strokeseg.process.progress import Show
    from strokeseg.records.experiment import Experiment

DONE, SOME_FAILED, MENDABLE = 0, 1, 2

_PLAIN_SECONDS = 15.0
_PUBLISH_SECONDS = 5.0
# What is left to do at the end of the command that runs.
_ENDS: ContextVar[ExitStack] = ContextVar("ends")
_LOG_BYTES, _OLD_LOGS = 8 << 20, 1
_NOISY_LOGGERS = ("ray", "ray.tune", "ray.data", "ray.train", "optuna", "py.warnings")


class _OneLineParser(argparse.ArgumentParser):
    """Reports a wrong option in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(MENDABLE, f"error: {message}; see {self.prog} --help\n")


def parser(command: str, manual: str | None) -> argparse.ArgumentParser:
    """Make a command's parser; its module's docstring is the manual."""
    return _OneLineParser(
        prog=f"strokeseg {command}",
        description=manual,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_experiment_options(options: argparse.ArgumentParser) -> None:
    """Add the options that say which experiment, and where its results lie."""
    options.add_argument(
        "--experiment",
        default="demo",
        metavar="NAME",
        help="a name under experiments/, or a YAML file (default: demo, which needs no data)",
    )
    options.add_argument(
        "--storage",
        default="runs",
        metavar="PLACE",
        help="folder or URI (s3://, gs://, file://) for all results (default: runs)",
    )


def add_data_option(options: argparse.ArgumentParser) -> None:
    """Add the option that replaces the experiment's own path to the cases."""
    options.add_argument(
        "--data", metavar="PLACE", help="the cases' folder, manifest or URI, in place of the YAML's"
    )


def add_address_option(options: argparse.ArgumentParser) -> None:
    """Add the option that names a running Ray cluster."""
    options.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="join the Ray cluster that runs there, or with auto the one of this machine, in place "
        "of RAY_ADDRESS (default: a private session on this machine)",
    )


def experiment_of(options: argparse.Namespace) -> Experiment:
    """Open the experiment that the options name; publish it until the command is over."""
    from strokeseg.records.experiment import open_experiment

    experiment = open_experiment(
        options.experiment, options.storage, getattr(options, "data", None)
    )
    if experiment.remote_copy is not None and (ends := _ENDS.get(None)) is not None:
        ends.enter_context(publishing(experiment.remote_copy))
    return experiment


@contextmanager
def publishing(remote_copy: RemoteCopy) -> Iterator[None]:
    """Publish every some seconds what changed, and at the end, however that comes about."""

    def look() -> None:
        # The next look, or the end of the command, tells of a storage that stays away.
        with suppress(UserError):
            remote_copy.publish()

    try:
        with background_timer(look, _PUBLISH_SECONDS):
            yield
    finally:
        remote_copy.publish()


def run_command(work: Callable[[], int], address: str | None = None) -> int:
    """Run a command's work and turn what it raises into an exit code.

    Args:
        address: The Ray cluster that it joins, in place of the environment's RAY_ADDRESS.
    """
    try:
        with heeding_interrupts(), ExitStack() as ends:
            ends.enter_context(_environment(**({"RAY_ADDRESS": address} if address else {})))
            before = _ENDS.set(ends)
            ends.callback(_ENDS.reset, before)
            return work()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return MENDABLE
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except Exception as error:
        # Whoever else writes, Ray Tune, TensorBoard, a log, says it in words of its own.
        fault = storage_fault(error)
        if fault is None:
            raise
        where = f"{fault.filename}: " if fault.filename else ""
        print(
            f"error: {where}cannot be written ({fault.strerror}); free or permit the place, and "
            "the same command goes on from there",
            file=sys.stderr,
        )
        return MENDABLE


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables of this process's environment for as long as the block takes."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _LogFile(logging.handlers.RotatingFileHandler):
    """A file of a log that says nothing of a full disk: whatever else writes does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        if storage_fault(sys.exc_info()[1]) is None:
            super().handleError(record)

    def close(self) -> None:
        # What it could not write, it tries again.
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send the chatter of Ray, Optuna and Python's warnings to a file, which rotates."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, maxBytes=_LOG_BYTES, backupCount=_OLD_LOGS, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in (*_NOISY_LOGGERS, "strokeseg")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()


@contextmanager
def progress(title: str) -> Iterator[Show]:
    """Show one bar on a terminal, or a plain line now and then where there is none.

    Yields:
        A function to call with how much is done, of how much, and a note such as what is
        best so far. It raises KeyboardInterrupt where something swallowed an earlier one.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(title, total=None, note="")

            def show(done: int, total: int, note: str) -> None:
                check_interrupt()
                bar.update(task, completed=done, total=total, note=note)

            yield show
        return
    yield _PlainProgress(title)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


class _PlainProgress:
    """A line every few seconds and one at the end, for logs and pipes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._shown = float("-inf")
        self._ended = False
        self._first_done: int | None = None

    def __call__(self, done: int, total: int, note: str) -> None:
        check_interrupt()
        now = time.monotonic()
        ended = done >= total
        if self._ended or (not ended and now - self._shown < _PLAIN_SECONDS):
            return
        self._shown, self._ended = now, ended
        # What a resumed search had done before it came back took none of this time.
        if self._first_done is None:
            self._first_done = done
        elapsed, new = now - self._started, done - self._first_done
        left = f", {elapsed * (total - done) / new:.0f} s left" if new and not ended else ""
        text = f"{self._title}: {done}/{total}, {elapsed:.0f} s{left}"
        print(f"{text}, {note}" if note else text, file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output; the first column is left, the others right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
