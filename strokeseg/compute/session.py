"""A quiet Ray for as long as a command needs one.

Where a cluster is named (`RAY_ADDRESS`, as `--address` and `ray job submit` set it) it is
joined, once its nodes are what `joining` wants them to be, and left alone; elsewhere a *private*
session starts on this machine and ends with the command. Its files lie in a temporary folder of
its own, which goes away with it; those of commands that were killed are removed by the next one.
Ray's own words go, by `cli.logging_to`, to the command's log: what it says at the start, and the
ends of its own logs when the session ends with an error, or when a worker crashed in it.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from subprocess import Popen
from typing import Any, NoReturn

import ray
from ray.data import DataContext
from rich.console import Console

from strokeseg.compute.joining import check_nodes, find_cluster
from strokeseg.errors import UserError
from strokeseg.process.background_timer import background_timer
from strokeseg.process.interrupts import holding_interrupts, stopped_by_now
from strokeseg.process.temporary_folder import temporary_folder

_log = logging.getLogger(__name__)

_PREFIX = "strokeseg-"
# Ray puts sockets below its folder, and the system allows a socket's path 107 bytes, or 103.
_LONGEST_PLACE = (103 if sys.platform == "darwin" else 107) - len(
    f"/{_PREFIX}12345678/in/session_2026-01-31_23-59-59_000000_1234567/sockets/plasma_store.1"
)
# Of 100 MB a day that Ray's logs grow by, 85 are tables of statistics. Rotating them more tightly
# than Ray does by itself would lose what a crashing worker says last.
_SELDOM = {"RAY_event_stats_print_interval_ms": "3600000"}
_HERE = "local"
_VITAL = ("raylet", "gcs_server")
_WATCH_SECONDS = 0.25
_ENDED_BY_LOSS = 2
_END_BYTES = 4000
_CRASH = "Fatal Python error"


@contextmanager
def ray_session(storage: Path | None = None, data: Path | None = None) -> Iterator[None]:
    """Start or join Ray, unless this process has done so already, and leave it at the end.

    A private session that loses one of its processes ends this process, with one line and
    exit code 2: Ray would go on for a minute without it, and call the trials failed.

    Args:
        storage: A folder that every node of a cluster must see and write to.
        data: Where tasks read cases, if they do.

    Raises:
        UserError: When the cluster named cannot be joined, has other versions, or does not see
            the folders.
    """
    if ray.is_initialized():
        yield
    elif named := os.environ.get("RAY_ADDRESS"):
        with _started({"address": find_cluster(named)}):
            check_nodes(storage, data)
            yield
    else:
        for name, milliseconds in _SELDOM.items():
            os.environ.setdefault(name, milliseconds)
        with (
            temporary_folder(_place(), _PREFIX) as folder,
            _reporting_logs(folder),
            _started(_private_session(folder)),
            _watched(folder),
        ):
            yield


def _place() -> Path:
    """The folder for temporary files, if Ray's sockets below it have names short enough."""
    place = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    return place if len(os.fsencode(place)) <= _LONGEST_PLACE else Path("/tmp")


def _private_session(folder: Path) -> dict[str, Any]:
    # Without an address, Ray joins any cluster that it finds on this machine.
    return {"address": _HERE, "include_dashboard": False, "_temp_dir": str(folder)}


@contextmanager
def _started(how: Mapping[str, Any]) -> Iterator[None]:
    ray_logger = logging.getLogger("ray")
    handlers = list(ray_logger.handlers)
    captured = io.StringIO()
    # The errors of its own that Ray prints to standard output have no other way to the log.
    ray._private.worker.print_to_stdstream = _log_errors
    try:
        try:
            # Ray swallows a Ctrl-C while it starts, and hears SIGTERM itself from then on.
            with redirect_stderr(captured), holding_interrupts():
                ray.init(log_to_driver=False, configure_logging=False, **how)
        except (ConnectionError, RuntimeError) as error:
            if how["address"] == _HERE:
                raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"Ray's address {how['address']}: the cluster cannot be joined ({reason}); see "
                "with ray status whether it is up, and with ray --version whether it is of one "
                "version"
            ) from None
        # Ray adds a handler of its own for the terminal while it starts.
        ray_logger.handlers = handlers
        _log.info("%s", captured.getvalue())
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        # Its newer reader of Parquet starts actors: of 20 cases along three axes the first took
        # 3.9 s in place of 2.1 s, the others 1.7 s in place of 0.3 s each.
        context.use_datasource_v2 = False
        yield
    finally:
        # Its folder goes next, and processes that are still ending would write there. Whoever
        # presses Ctrl-C twice would otherwise leave both.
        with holding_interrupts():
            ray.shutdown(wait_for_processes=True)


def _log_errors(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    _log.warning("Ray: %s", "\n".join(data["lines"]))


@contextmanager
def _reporting_logs(folder: Path) -> Iterator[None]:
    """Copy the ends of Ray's logs to ours when they may be asked for, before they go."""
    with ExitStack() as ends:
        # Whatever ends the session, but what the user can mend or has asked for.
        ends.callback(_tell_logs, folder, crashes_only=False)
        try:
            yield
        except (UserError, KeyboardInterrupt):
            ends.pop_all()
            raise
        ends.pop_all()
    _tell_logs(folder, crashes_only=True)


def _tell_logs(folder: Path, *, crashes_only: bool) -> None:
    logs = folder / "session_latest" / "logs"
    for name in ("worker-*.err",) if crashes_only else ("raylet.*", "gcs_server.*", "worker-*.*"):
        for path in sorted(logs.glob(name)):
            end = _end_of(path)
            if end.strip() and (_CRASH in end or not crashes_only):
                _log.warning("the end of Ray's %s:\n%s", path.name, end)


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return file.read().decode(errors="replace")


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """End this process when Ray has lost one of its own that it cannot do without."""
    # There is no public way to them.
    started = ray._private.worker._global_node.all_processes
    processes: dict[str, Popen[bytes]] = {name: of[0].process for name, of in started.items()}

    def look() -> None:
        for name in _VITAL:
            if processes[name].poll() is not None:
                _end_without(name, processes, folder)

    with background_timer(look, _WATCH_SECONDS):
        yield


def _end_without(lost: str, processes: Mapping[str, Popen[bytes]], folder: Path) -> NoReturn:
    """End at once, as if killed, since Tune would record running trials as failed."""
    code = processes[lost].returncode
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    # Where all processes are sent SIGTERM, Ray's may end before this one has.
    stop = stopped_by_now()
    if stop is None:
        _tell_logs(folder, crashes_only=False)
    # A bar hides the cursor, and its own end will not come.
    Console(stderr=True).show_cursor()
    print(
        stop
        or f"error: Ray's process {lost} ended ({ending}); the same command goes on from there",
        file=sys.stderr,
        flush=True,
    )
    shutil.rmtree(folder.parent, ignore_errors=True)
    for process in processes.values():
        process.kill()
    os._exit(stop.code if stop else _ENDED_BY_LOSS)
