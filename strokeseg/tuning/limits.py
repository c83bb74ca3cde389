"""The limits of a search: its hours, and the failures after which it is hopeless.

A *session* is what one process searches. The hours are those of all sessions together, the
failures those of this one: what failed before may have been mended since.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# As many failures for one reason, without any success, are no accident.
_HOPELESS = 3


class Hours:
    """The wall time of a search, earlier sessions included.

    Args:
        most: Hours after which the search ends, if it does.
        seconds_before: What earlier sessions took.
        clock: Seconds that only grow.
    """

    def __init__(
        self, most: float | None, seconds_before: float, clock: Callable[[], float]
    ) -> None:
        self._most = most
        self._seconds_before = seconds_before
        self._clock = clock
        self._opened = clock()
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds that were searched so far."""
        now = self._clock() if self._stopped is None else self._stopped
        return self._seconds_before + now - self._opened

    def stop(self) -> None:
        """Count no more: the study is done, though other axes may still be searched."""
        if self._stopped is None:
            self._stopped = self._clock()

    def are_over(self) -> str | None:
        """Say that the search's hours are over, if they are."""
        if self._most is None or self.seconds < self._most * 3600:
            return None
        return f"the {self._most:g} hours of the search are over"


class Failures:
    """How the trials of this session ended, as far as it tells that all will fail alike.

    Args:
        trials: How many trials the study shall have; fewer than usual are enough of few.

    Attributes:
        endings: How many trials have ended in this session.
    """

    def __init__(self, trials: int) -> None:
        self.endings = 0
        self._enough = min(_HOPELESS, trials)
        self._first: tuple[int, str] | None = None
        self._are_alike = True
        self._reporting: set[int] = set()

    def take_report(self, number: int) -> None:
        """Note that a trial reported an epoch: while it runs, it is no failure."""
        self._reporting.add(number)

    def take_ending(self, number: int, *, failed: bool, reason: str) -> None:
        """Note that a trial has ended, and why."""
        self._reporting.discard(number)
        # The earliest trial's reason, since which of two ends first is chance.
        self._first = min(self._first or (number, reason), (number, reason))
        # Trials tell of their own numbers: "trial 7" and "trial 8" may fail alike.
        alike = re.sub(r"\d+", "#", reason) == re.sub(r"\d+", "#", self._first[1])
        self._are_alike &= failed and alike
        self.endings += 1

    def hopeless(self) -> str | None:
        """Return the one reason for which every trial of this session fails, if there is one."""
        if self.endings < self._enough or self._reporting or not self._are_alike:
            return None
        return None if self._first is None else self._first[1]
