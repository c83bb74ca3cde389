"""One driver at a time for what lies on a storage, on whatever machines they run.

A *lease* is an object that its *holder* writes again every some seconds. Who finds another
holder's lease that is fresh by the storage's own clock must wait; a stale one is taken over, and
its holder, should it wake up again, ends. A file lock beside it keeps drivers of one machine apart,
so a lease of one's own machine is free.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from strokeseg.errors import UserError
from strokeseg.process.background_timer import background_timer
from strokeseg.storage.remote_copy import RemoteCopy

_BEAT_SECONDS = 5.0
_STALE_SECONDS = 30.0
_RACE_SECONDS = 1.0
_ENDED_BY_OTHERS = 2


@contextmanager
def leased(remote_copy: RemoteCopy, path: Path) -> Iterator[None]:
    """Hold a lease for as long as the block takes.

    Args:
        path: Names the lease, in the remote copy's folder; nothing is written there locally.

    Raises:
        UserError: When another machine holds it, or the storage does not answer.
    """
    holder = f"{socket.gethostname()} {os.getuid()}"
    _refuse_other(remote_copy, path, holder)
    remote_copy.write(path, holder)
    # Of two that came at once the later one's writing stands.
    time.sleep(_RACE_SECONDS)
    _refuse_other(remote_copy, path, holder)

    def beat() -> None:
        with suppress(UserError):
            found = remote_copy.read(path)
            if found is not None and found[0] != holder:
                _end_without(remote_copy, found[0])
            remote_copy.write(path, holder)

    try:
        with background_timer(beat, _BEAT_SECONDS):
            yield
    finally:
        remote_copy.remove(path)


def _end_without(remote_copy: RemoteCopy, other: str) -> NoReturn:
    """End at once, as if killed: what this process would still publish is another's by now."""
    print(
        f"error: {remote_copy.uri}: not heard of for {_STALE_SECONDS:.0f} s or more, and so "
        f"{other.split(' ', maxsplit=1)[0]} has taken this study over; it goes on there",
        file=sys.stderr,
        flush=True,
    )
    os._exit(_ENDED_BY_OTHERS)


def _refuse_other(remote_copy: RemoteCopy, path: Path, holder: str) -> None:
    found = remote_copy.read(path)
    if found is None:
        return
    other, age_seconds = found
    if other != holder and age_seconds < _STALE_SECONDS:
        raise UserError(
            f"{remote_copy.uri}: another search is running on this study, on {other.split(' ')[0]} "
            f"(heard of {age_seconds:.0f} s ago); wait for it or end it, and if it was killed, try "
            f"again in {_STALE_SECONDS:.0f} s"
        )
