"""What Ray Tune asks of a search, answered from the ledgers of its axes.

Tune's own schedulers forget with the driver what they saw, and its OptunaSearch tells a
stopped trial as complete. Hence `StudyScheduler` and `StudySearcher`, both thin: Tune asks
them, they ask the ledger of the trial's axis. Tune's own trial identifiers mean nothing after
the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray.tune import experiment as tune_experiment
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from strokeseg.storage.files import parse_storage_fault
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.space import plain

# How often a trial is tried again whose process ends without an epoch in between.
RETRIES_OF_A_LOST_PROCESS = 2


class TrialKey(NamedTuple):
    """Which trial it is: its axis, and its number in that axis's study."""

    axis: str
    number: int


class StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's questions about which trial comes next, answered from the ledgers.

    The axis with the most trials left to start comes first; of equal ones the one that has
    waited longest.

    Args:
        ledgers: By axis.

    Attributes:
        keys: Which trial each of Tune's trials is.
        last_errors: Why the process of a trial failed last, by Tune's trial identifier.
    """

    def __init__(self, ledgers: Mapping[str, Ledger]) -> None:
        super().__init__()
        self._ledgers = dict(ledgers)
        self._last_turn = dict.fromkeys(ledgers, 0)
        self.keys: dict[str, TrialKey] = {}
        self.last_errors: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration for `tuning.trial`, or that there is none.

        None means none for now: what is confirmed depends on the trials that still run.
        """
        for axis in self._in_turn():
            proposal = self._ledgers[axis].ask()
            if proposal is None:
                continue
            self.keys[trial_id] = TrialKey(axis, proposal.number)
            self._last_turn[axis] = len(self.keys)
            return {
                "axis": axis,
                "number": proposal.number,
                "config": plain(proposal.config),
                "reported_epoch": proposal.reported_epoch,
            }
        may_ask_again = any(ledger.may_ask_again() for ledger in self._ledgers.values())
        return None if may_ask_again else str(Searcher.FINISHED)

    def _in_turn(self) -> list[str]:
        return sorted(
            self._ledgers,
            key=lambda axis: (-self._ledgers[axis].unstarted(), self._last_turn[axis]),
        )

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial whose process failed once too often.

        Without an error there is nothing to do: the scheduler has informed the ledger, or the
        search was interrupted and the trial stays an orphan.
        """
        if error:
            reason = self.last_errors.get(trial_id, "its process ended without a word")
            # Where the disk was at fault it goes on when that is mended.
            if parse_storage_fault(reason) is None:
                key = self.keys[trial_id]
                self._ledgers[key.axis].fail(key.number, reason)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: the journals hold all there is."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for a restore that we never ask for.
        return {}


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's questions about which trial goes on, answered from the ledgers."""

    _supports_buffered_results = False

    def __init__(self, ledgers: Mapping[str, Ledger], searcher: StudySearcher) -> None:
        super().__init__()
        self._ledgers = dict(ledgers)
        self._searcher = searcher

    def on_trial_result(
        self, tune_controller: object, trial: tune_experiment.Trial, result: Mapping[str, Any]
    ) -> str:
        """Report an epoch, or the reason of a failure, and pass on what follows from it."""
        axis, number = self._searcher.keys[trial.trial_id]
        ledger = self._ledgers[axis]
        if result.get("halt"):
            self._halt(result["halt"])
            return str(TrialScheduler.STOP)
        if result.get("failure"):
            ledger.fail(number, result["failure"])
            return str(TrialScheduler.STOP)
        if result["epoch"] > ledger.last_epoch(number):
            # A process that is lost may be lost again: every new epoch gives it its tries back.
            trial.max_failures = trial.run_metadata.num_failures + RETRIES_OF_A_LOST_PROCESS
        stop = ledger.report(number, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: tune_experiment.Trial) -> None:
        """Remember why a trial's process failed; Tune may yet try the trial again."""
        # An actor that failed before it ever ran leaves no file.
        if trial.error_file is not None:
            reason = _last_error(Path(trial.error_file))
            self._searcher.last_errors[trial.trial_id] = reason
            # Tune itself writes there before a trial begins.
            if fault := parse_storage_fault(reason):
                self._halt(fault)

    def _halt(self, reason: str) -> None:
        # A disk that is full, or a GPU that does not compute, serves all axes.
        for ledger in self._ledgers.values():
            ledger.halt(reason)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _last_error(error_file: Path) -> str:
    """The line that says it in Tune's error file: a traceback's last, or a dead process's first."""
    last = error_file.read_text().strip().split("Failure #")[-1].splitlines()[1:]
    lines = [line.strip() for line in last if line.strip()]
    if not lines:
        return "its process ended without a word"
    return lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]
