"""Temporary folders that go away with the process that made them, however it ends.

A *living* folder is locked by its process; the system gives the lock back when the process
ends, even by `kill -9`. A *dead* one is nobody's any more: the next process that makes a
folder in the same place sweeps it away.
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
def living_folder(place: Path, prefix: str) -> Iterator[Path]:
    """Give an empty folder that only this user may enter, and remove it at the end.

    Args:
        place: Where to make it, in a folder of its own: `<place>/<prefix>????????/in`.
        prefix: Marks the folders of one kind; dead ones of that kind are swept away first.
    """
    _sweep(place, prefix)
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    lock = FileLock(home / _LOCK)
    try:
        lock.acquire()
        # Made only now, since to a sweep a folder without it has not yet begun to live.
        content = home / _CONTENT
        content.mkdir()
        yield content
    finally:
        # What others still write there, such as ending children, must not outlive it.
        with holding_interrupts():
            _remove(home)
            lock.release()


def _sweep(place: Path, prefix: str) -> None:
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
        # Another sweep was faster.
        return False


def _remove(home: Path) -> None:
    for _ in range(_ATTEMPTS):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(_PAUSE_SECONDS)
