"""One study's truth: what was proposed, reported and decided.

The *ledger* keeps it in Optuna's journal as it happens: the journal alone says what a
resumed search still has to do. A *trial's number* is its number in the journal. Every trial
ends in one state: COMPLETE with its best score, PRUNED when others were better, FAIL with a
reason. A trial that was running when the search was interrupted stays RUNNING, an *orphan*,
and is handed out again under its own number.

Trial 0 is the *default*, which is never stopped early. When all trials have ended, the best
are *confirmed*: run again with other seeds, since the best of many scores is partly luck.
Trials of an earlier study that fit this one's space are *inherited*: the sampler learns from
them, and those whose weights are there stand on the leaderboard.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from strokeseg.records.config import SearchConfig
from strokeseg.records.leaderboard import LeaderboardRow, best_complete, with_confirmations
from strokeseg.tuning.entries import (
    INHERITED,
    Entries,
    Proposal,
    counts,
    repeats_another,
    verdict,
)
from strokeseg.tuning.limits import Failures, Hours
from strokeseg.tuning.samplers import make_sampler
from strokeseg.tuning.scoring import Scoring
from strokeseg.tuning.space import Space, plain

# INHERITED for tuning.study, which may take it from tuning.entries as well.
__all__ = ["INHERITED", "Ledger"]

_SEARCHED_SECONDS = "searched_seconds"
_SECONDS_BETWEEN_NOTES = 10.0
_MOST_REPEATS = 20


class Ledger:
    """The study of one axis.

    Args:
        study: Optuna's study, in which this process alone writes.
        space: What may be proposed.
        scoring: What a trial's score is, and when a trial is beaten.
        budget: How much may be spent.
        trials: How many trials the study shall have in the end.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        scoring: Scoring,
        budget: SearchConfig,
        *,
        trials: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._scoring = scoring
        self._budget = budget
        self._trials = budget.trials if trials is None else trials
        self._entries = Entries(study, space, scoring, self._sampler)
        self._failures = Failures(self._trials)
        seconds_before = float(study.user_attrs.get(_SEARCHED_SECONDS, 0.0))
        self._hours = Hours(budget.max_hours, seconds_before, clock)
        self._halted: str | None = None
        self._clock = clock
        self._noted = clock()

    @property
    def epochs(self) -> int:
        """Epochs of a trial that is never stopped early."""
        return self._scoring.epochs

    @property
    def trials(self) -> int:
        """How many trials the study shall have in the end, confirmations not counted."""
        return self._trials

    @property
    def ended(self) -> int:
        """How many trials and confirmations have ended in this session."""
        return self._failures.endings

    def best(self) -> LeaderboardRow | None:
        """Return the trial of the best score so far, if there is one."""
        scored = (row for row in self._entries.rows() if row.listed and row.dice is not None)
        return max(scored, key=lambda row: (row.dice or 0.0, -row.trial), default=None)

    def remaining(self) -> int:
        """How many trials are still to be run or finished, confirmations not counted."""
        return max(0, self._trials - sum(map(_has_ended, self._own())))

    def to_confirm(self) -> int:
        """How many confirmations are still to be run or finished, as far as is known."""
        if self.remaining() and self.reached_target() is None:
            return self._budget.confirm_trials * self._budget.confirm_seeds
        return sum(self._unconfirmed().values())

    def unstarted(self) -> int:
        """How many trials and confirmations are yet to be started, as far as is known."""
        return max(0, self.remaining() + self.to_confirm() - len(self._entries.running))

    def is_done(self) -> bool:
        """Whether nothing is left to run, or what is left shall not be run."""
        if self.out_of_time() is not None:
            return True
        trials_done = not self.remaining() or self.reached_target() is not None
        return trials_done and not self.to_confirm()

    def ask(self) -> Proposal | None:
        """Return the next trial to run, or None: for now, or for good (see `is_done`)."""
        if self._halted or self.out_of_time() is not None or self.hopeless() is not None:
            return None
        while self._entries.orphans:
            number = self._entries.orphans.pop(0)
            if self._shall_rest(number):
                continue
            proposal = self._resume(number)
            if proposal is not None:
                return proposal
        if self.reached_target() is None and len(self._own()) < self._trials:
            return self._propose()
        if not self.remaining() or self.reached_target() is not None:
            return self._propose_confirmation()
        return None

    def may_ask_again(self) -> bool:
        """Whether there may be a next trial when one that runs has ended."""
        # Even after hopeless failures: a trial that still runs may yet prove them wrong.
        return bool(self._entries.running) and not self.is_done() and not self._halted

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Record an epoch; return whether the trial shall stop here.

        Args:
            result: As `tuning.trial` reports it: `epoch` from 1, `dice`, `seconds` and
                `device_hours` so far, and `spread`, or with a fold's end `case_dice`.
        """
        self._failures.take_report(number)
        if result["epoch"] > self._entries.row(number).epochs_run:
            self._entries.report(number, result)
        self._note_time()
        if self._decide(number):
            return True
        # Whoever runs when the search's own end comes stays an orphan and may go on later.
        return bool(self._halted or self.out_of_time()) or (
            self.reached_target() is not None and self._entries.row(number).confirms is None
        )

    def fail(self, number: int, reason: str) -> None:
        """Record that a trial failed, and why."""
        self._end(number, TrialState.FAIL, " ".join(reason.split()))

    def halt(self, reason: str) -> None:
        """Let all trials stop where they are, to go on when the search does."""
        self._halted = self._halted or reason

    @property
    def halted(self) -> str | None:
        """Why the search cannot go on for now, if it cannot."""
        return self._halted

    def last_epoch(self, number: int) -> int:
        """Return the last epoch that a trial reported, 0 before the first."""
        return self._entries.row(number).epochs_run

    def rows(self) -> list[LeaderboardRow]:
        """Return the leaderboard's records of all trials that were started, by number."""
        rows = self._entries.rows()
        return with_confirmations([row for row in rows if row.listed and row.parameters])

    def row(self, number: int) -> LeaderboardRow:
        """Return the record of one trial that was started."""
        return self._entries.row(number)

    def epochs_done(self) -> int:
        """Return the epochs run, with ended trials counted as if never stopped early."""
        return sum(
            self.epochs if _has_ended(row) else row.epochs_run
            for row in self._entries.rows()
            if not row.inherited
        )

    def epochs_in_all(self) -> int:
        """Return the epochs of all trials and confirmations, as far as is known."""
        confirmed = sum(
            row.confirms is not None and _has_ended(row) for row in self._entries.rows()
        )
        return self.epochs * (self._trials + self.to_confirm() + confirmed)

    def out_of_time(self) -> str | None:
        """Say that the search's hours are over, if they are."""
        return self._hours.are_over()

    def reached_target(self) -> str | None:
        """Say which trial reached the score that is enough, if any did."""
        target = self._budget.target_dice
        if target is None:
            return None
        for row in self._entries.rows():
            if row.listed and row.state == "COMPLETE" and (row.dice or 0.0) >= target:
                return f"trial {row.trial} reached Dice {row.dice:.3f}, {target:g} was asked for"
        return None

    def hopeless(self) -> str | None:
        """Return the one reason for which every trial of this session fails, if there is one.

        A trial that runs and has reported an epoch in this session is no failure.
        """
        return self._failures.hopeless()

    def searched_seconds(self) -> float:
        """Wall time of the search in seconds, earlier sessions included."""
        return self._hours.seconds

    def close(self) -> None:
        """Write down how long this session took."""
        self._study.set_user_attr(_SEARCHED_SECONDS, self.searched_seconds())

    def _note_time(self) -> None:
        if self._clock() - self._noted > _SECONDS_BETWEEN_NOTES:
            self._noted = self._clock()
            self.close()

    @property
    def orphans(self) -> int:
        """How many interrupted trials and confirmations have yet to be resumed."""
        return len(self._entries.orphans)

    def _shall_rest(self, number: int) -> bool:
        """Whether an orphan shall stay one: a target or a lower total leaves no place for it."""
        own = {row.trial: row for row in self._own()}
        if number not in own:
            return False
        placed = sum(_has_ended(row) or row.trial in self._entries.running for row in own.values())
        return self.reached_target() is not None or placed >= self._trials

    def _propose(self) -> Proposal:
        """Return a new trial, other than all before it unless the space has no more."""
        entries = self._entries
        for _ in range(_MOST_REPEATS):
            number = entries.waiting.pop(0) if entries.waiting else entries.next_number
            proposal = entries.sample(number)
            earlier = self._twin(number, proposal)
            if earlier is None or number == 0:
                return proposal
            entries.drop(number, earlier)
        return entries.sample(entries.next_number)

    def _own(self) -> list[LeaderboardRow]:
        """Return the rows of the trials that count towards the total."""
        rows = self._entries.rows()
        return [row for row in rows if row.confirms is None and not row.inherited]

    def _twin(self, number: int, proposal: Proposal) -> int | None:
        """Return the first other trial of the same configuration that makes this one needless."""
        parameters = plain(proposal.config)
        for row in self._entries.rows():
            # One without its weights cannot be promoted: to run it again is worth something.
            fit = row.confirms is None and row.listed and row.state != "FAIL"
            if fit and row.trial != number and row.parameters == parameters:
                return row.trial
        return None

    def _sampler(self, number: int) -> BaseSampler:
        seed = self._budget.seed + number
        return make_sampler(self._budget.sampler, seed=seed, trials=self._trials)

    def _resume(self, number: int) -> Proposal | None:
        """Return an orphan to resume, or None when only its verdict was missing."""
        proposal, found = self._entries.resume(number)
        fresh = proposal.reported_epoch == 0
        earlier = self._twin(number, proposal) if fresh else None
        if repeats_another(found) or (
            earlier is not None and counts(found) and 0 < earlier < number
        ):
            self._entries.drop(number, number if earlier is None else earlier)
            return None
        # The driver may have died between an epoch's report and what follows from it.
        ending = verdict(found)
        if ending is not None:
            self._end(number, *ending)
        elif fresh or not self._decide(number):
            return proposal
        return None

    def _unconfirmed(self) -> dict[int, int]:
        """Return how many runs each of the best trials still lacks."""
        rows = self._entries.rows()
        confirmed = Counter(row.confirms for row in rows if _has_ended(row))
        listed = [row for row in rows if row.listed]
        lacking = {
            row.trial: self._budget.confirm_seeds - confirmed[row.trial]
            for row in best_complete(listed, self._budget.confirm_trials)
        }
        return {number: count for number, count in lacking.items() if count > 0}

    def _propose_confirmation(self) -> Proposal | None:
        """Return a further run of one of the best trials, or None when all are asked for."""
        rows = self._entries.rows()
        running = Counter(row.confirms for row in rows if not _has_ended(row))
        for number, lacking in self._unconfirmed().items():
            if running[number] < lacking:
                return self._entries.confirm(number)
        return None

    def _decide(self, number: int) -> bool:
        """End a trial that has run its epochs or that others have beaten; return whether."""
        row = self._entries.row(number)
        if row.epochs_run >= self.epochs:
            self._end(number, TrialState.COMPLETE, "")
            return True
        if self._is_enough(row):
            self._end(
                number, TrialState.COMPLETE, f"reached the target after {row.epochs_run} epochs"
            )
            return True
        if row.confirms is not None:
            return False
        # The default competes with the others, but it always runs to its end.
        beaten = self._entries.is_beaten(number)
        if beaten and number != 0:
            reason = f"stopped after epoch {row.epochs_run}: others were better"
            self._end(number, TrialState.PRUNED, reason)
        return beaten and number != 0

    def _is_enough(self, row: LeaderboardRow) -> bool:
        """Whether a trial need not go on; a k-fold score is none before the last fold."""
        target = self._budget.target_dice
        if target is None or row.dice is None or row.best_epoch is None:
            return False
        return row.confirms is None and row.dice >= target

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        row = self._entries.end(number, state, reason)
        self._failures.take_ending(number, failed=row.state == "FAIL", reason=row.reason)
        if self.is_done():
            self._hours.stop()


def _has_ended(row: LeaderboardRow) -> bool:
    return row.state != "RUNNING"
