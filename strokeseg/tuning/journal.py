"""Optuna's journal as a file that survives whatever ends its writer.

The *journal* is a text file, a line an event. A writer that was killed, or a disk that was
full, may leave the last line torn and a lock that nobody holds: both would keep Optuna from
going on. The driver of a study alone writes it, but others (optuna-dashboard) may read along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from strokeseg.errors import UserError, shown
from strokeseg.files import told_as

# A write takes milliseconds: a lock that is older belongs to a process that was killed.
_LOCK_SECONDS = 3
_TAIL_BYTES = 1 << 20
# Optuna's codes of the events that say something of a trial which is about to report or to end:
# a parameter, an attribute of ours, and one of a sampler or pruner.
_DETAILS = {5, 8, 9}


class _JournalFile(JournalFileBackend):
    """A journal's file that waits for the disk only where a trial begins, reports or ends.

    Optuna waits after every event, 25 times a trial of four epochs. What is written before
    gets to the disk with what is waited for; that a process was killed costs nothing, and
    that the power failed, no report.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = JournalFileSymlinkLock(str(path), grace_period=_LOCK_SECONDS)
        super().__init__(str(path), lock_obj=self._held)

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Write events, and wait for the disk unless they are details."""
        if any(log["op_code"] not in _DETAILS for log in logs):
            super().append_logs([dict(log) for log in logs])
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._held.acquire()
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        finally:
            self._held.release()


@contextmanager
def told_as_journal(path: Path) -> Iterator[None]:
    """Say in one line that a journal is none of a study of ours, where reading it goes wrong.

    Raises:
        UserError: For whatever its lines make Optuna, or what we keep in it makes us, raise.
    """
    remedy = "restore it, or move its folder away to begin the search anew"
    try:
        with told_as(path, "journal of a study", remedy):
            yield
    except (AssertionError, RecursionError, OptunaError) as error:
        reason = f"{type(error).__name__} {shown(str(error))}".strip()
        raise UserError(f"{path}: is no journal of a study ({reason}); {remedy}") from None


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, made where it is not there, for reading and writing."""
    return JournalStorage(_JournalFile(path))


def mend_journal(path: Path) -> None:
    """Cut off a last line that was not written to its end; for the journal's driver only."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)


def read_study(path: Path, name: str) -> optuna.Study | None:
    """Return a study of a journal, or nothing when the journal does not hold it."""
    storage = open_journal(path)
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)
