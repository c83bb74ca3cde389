"""The tally: a study's leaderboard rows and their counts, kept at hand.

A trial is *own* when it is neither inherited nor a *further run*, one that confirms another.
A row is taken in anew with every report of its trial. What the ledger asks after each of them
is answered without going through the rows: the thousandth trial must cost what the first did.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any

from strokeseg.leaderboard import LeaderboardRow, with_confirmations


class Tally:
    """The rows of one study by number of the trial; equal answers to a walk over all rows.

    Args:
        target_dice: The score that is enough, if any is.

    Attributes:
        own: Number of own trials.
        own_ended: How many of them have ended.
        further_ended: Number of further runs that have ended.
    """

    def __init__(self, target_dice: float | None) -> None:
        self.own = 0
        self.own_ended = 0
        self.further_ended = 0
        self._target_dice = target_dice
        self._rows: dict[int, LeaderboardRow] = {}
        # The order in which the trials came.
        self._places: dict[int, int] = {}
        # Every score that a listed row ever had, the best first; all but the last are stale.
        self._scores: list[tuple[float, int]] = []
        self._complete: list[tuple[float, int]] = []
        self._further: Counter[tuple[int, bool]] = Counter()
        self._twins: dict[frozenset[tuple[str, Any]], list[int]] = {}
        self._ended = 0
        self._epochs_of_running = 0
        self._reached: int | None = None

    def __getitem__(self, number: int) -> LeaderboardRow:
        """Return the row of a trial that was taken in."""
        return self._rows[number]

    def get(self, number: int) -> LeaderboardRow | None:
        """Return the row of a trial, or nothing."""
        return self._rows.get(number)

    def put(self, row: LeaderboardRow) -> None:
        """Take in a row, in the place of the trial's last one."""
        before = self._rows.get(row.trial)
        self._places.setdefault(row.trial, len(self._places))
        self._rows[row.trial] = row
        if before is not None:
            self._count(before, -1)
        self._count(row, 1)
        if before is None or before.parameters != row.parameters:
            if before is not None:
                self._twins[_key(before.parameters)].remove(row.trial)
            self._twins.setdefault(_key(row.parameters), []).append(row.trial)
        if row.listed and row.dice is not None:
            if before is None or before.dice != row.dice:
                heappush(self._scores, (-row.dice, row.trial))
            if row.state == "COMPLETE" and (before is None or before.state != "COMPLETE"):
                self._take_in_complete(row, row.dice)

    def drop(self, number: int) -> None:
        """Forget a trial that is still running."""
        row = self._rows.pop(number)
        self._count(row, -1)
        self._twins[_key(row.parameters)].remove(number)

    def best(self) -> LeaderboardRow | None:
        """Return the listed row of the best score, the earlier trial's of equal ones."""
        while self._scores:
            score, number = self._scores[0]
            row = self._rows.get(number)
            if row is not None and row.dice == -score:
                return row
            heappop(self._scores)
        return None

    def best_complete(self, count: int) -> list[int]:
        """Return the listed, complete trials of the best scores, further runs left out."""
        return [number for _, number in self._complete[:count]]

    def reached_target(self) -> LeaderboardRow | None:
        """Return the first listed row that is complete with the score that is enough."""
        return None if self._reached is None else self._rows[self._reached]

    def further_runs(self, number: int, *, ended: bool) -> int:
        """How many further runs of a trial have ended, or are running."""
        return self._further[number, ended]

    def epochs_done(self, epochs: int) -> int:
        """Return the epochs run, an ended trial's counted as `epochs`; inherited ones' are not."""
        return epochs * self._ended + self._epochs_of_running

    def twin(self, number: int, parameters: Mapping[str, Any]) -> int | None:
        """Return the first other trial of the same parameters that makes this one needless."""
        twins = self._twins.get(_key(parameters), ())
        rows = (self._rows[other] for other in twins if other != number)
        # One without its weights cannot be promoted: to run it again is worth something.
        fit = (row for row in rows if row.confirms is None and row.listed and row.state != "FAIL")
        return min((row.trial for row in fit), key=self._places.__getitem__, default=None)

    def listed(self) -> list[LeaderboardRow]:
        """Return the listed rows of trials that were started, by number; goes through all."""
        rows = [row for row in self._rows.values() if row.parameters and row.listed]
        return with_confirmations(sorted(rows, key=lambda row: row.trial))

    def _count(self, row: LeaderboardRow, change: int) -> None:
        ended = row.state != "RUNNING"
        if row.confirms is not None:
            self._further[row.confirms, ended] += change
            self.further_ended += change * ended
        elif not row.inherited:
            self.own += change
            self.own_ended += change * ended
        if not row.inherited:
            self._ended += change * ended
            self._epochs_of_running += 0 if ended else change * row.epochs_run

    def _take_in_complete(self, row: LeaderboardRow, dice: float) -> None:
        if row.confirms is None:
            insort(self._complete, (-dice, row.trial))
        if self._target_dice is None or dice < self._target_dice:
            return
        if self._reached is None or self._places[row.trial] < self._places[self._reached]:
            self._reached = row.trial


def _key(parameters: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """Equal for equal configurations, 1 and 1.0 included, as they are after a journal's JSON."""
    return frozenset(parameters.items())
