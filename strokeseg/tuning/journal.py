"""Optuna's journal as a file that survives whatever ends its writer.

The *journal* is a text file, a line an event. A writer that was killed, or a disk that was
full, may leave the last line torn and a lock that nobody holds: both would keep Optuna from
going on. The driver of a study alone writes it, but others (optuna-dashboard) may read along.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

# A write takes milliseconds: a lock that is older belongs to a process that was killed.
_LOCK_SECONDS = 3
_TAIL_BYTES = 1 << 20


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, made where it is not there, for reading and writing."""
    lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK_SECONDS)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


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
