"""Temporary folders that go away with the process that made them, however it ends.

A folder in use is locked by its process; the system releases the lock when the process ends, even
by `kill -9`. A folder without that lock is *abandoned*: the next process that makes a folder in
the same place removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from strokeseg.process.interrupts import holding_interrupts

_LOCK, _CONTENT = "lock", "in"
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.1


@contextmanager
def temporary_folder(place: Path, prefix: str) -> Iterator[Path]:
    """Give an empty folder that only this user may enter, and remove it at the end.

    Args:
        place: Where to make it, in a folder of its own: `<place>/<prefix>????????/in`.
        prefix: Marks the folders of one kind; abandoned ones of that kind are removed first.
    """
    _remove_abandoned(place, prefix)
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    lock = FileLock(home / _LOCK)
    try:
        lock.acquire()
        # Made only now: other processes leave alone a folder that has none yet.
        content = home / _CONTENT
        content.mkdir()
        yield content
    finally:
        # What others still write there, such as ending children, must not outlive it.
        with holding_interrupts():
            _remove(home)
            lock.release()


def _remove_abandoned(place: Path, prefix: str) -> None:
    for home in place.glob(f"{prefix}*"):
        if not (home / _CONTENT).is_dir() or home.is_symlink() or not _is_ours(home):
            continue
        lock = FileLock(home / _LOCK, timeout=0)
        try:
            lock.acquire()
        except (Timeout, OSError):
            continue
        _remove(home)
        lock.release()


def _is_ours(home: Path) -> bool:
    try:
        return home.stat().st_uid == os.getuid()
    except FileNotFoundError:
        # Another process was faster.
        return False


def _remove(home: Path) -> None:
    for _ in range(_ATTEMPTS):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(_PAUSE_SECONDS)
