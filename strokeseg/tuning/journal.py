"""Optuna's journal as a file that survives whatever ends its writer.

The *journal* is a text file, a line an event. A writer that was killed, or a disk that was
full, may leave the last line torn and a lock that nobody holds. The first would end the study, the
second keep Optuna waiting for half a minute. The driver of a study alone writes it, but others
(optuna-dashboard) may read along.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from strokeseg.errors import UserError, shown
from strokeseg.storage.files import converts_errors

_TAIL_BYTES = 1 << 20


@contextmanager
def converts_journal_errors(path: Path) -> Iterator[None]:
    """Say in one line that a journal is none of a study of ours, where reading it goes wrong.

    Raises:
        UserError: For whatever its lines make Optuna, or what we keep in it makes us, raise.
    """
    remedy = "restore it, or move its folder away to start the search from scratch"
    try:
        with converts_errors(path, "journal of a study", remedy):
            yield
    except (AssertionError, RecursionError, OptunaError) as error:
        reason = f"{type(error).__name__} {shown(str(error))}".strip()
        raise UserError(f"{path}: is no journal of a study ({reason}); {remedy}") from None


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, made where it is not there, for reading and writing."""
    return JournalStorage(JournalFileBackend(str(path)))


def mend_journal(path: Path) -> None:
    """Remove a last line that was not written to its end, and locks of processes that were killed.

    For the study's driver only, before it writes.
    """
    # Optuna's lock, and what it is renamed to before it is removed.
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)


def read_study(path: Path, name: str) -> optuna.Study | None:
    """Return a study of a journal, or None when the journal does not hold it."""
    storage = open_journal(path)
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)
