"""The two ways in which Ray Tune asks for a study's truth.

Tune's own schedulers forget with the driver what they saw, and its OptunaSearch tells a
stopped trial as complete. Hence `StudyScheduler` and `StudySearcher`, both thin: Tune asks
them, they ask the ledger. Tune's own trial identifiers mean nothing after the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import experiment as tune_experiment
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from strokeseg.files import told_storage_fault
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.space import plain

# How often a trial is tried again whose process ends without an epoch in between.
RETRIES_OF_A_LOST_PROCESS = 2


class StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's questions about which trial comes next, answered from the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.numbers: dict[str, int] = {}
        self.last_errors: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration for `tuning.trial`, or that there is none.

        Nothing means none for now: what is confirmed depends on the trials that still run.
        """
        proposal = self._ledger.ask()
        if proposal is not None:
            self.numbers[trial_id] = proposal.number
            return {
                "number": proposal.number,
                "config": plain(proposal.config),
                "reported_epoch": proposal.reported_epoch,
            }
        return None if self._ledger.may_ask_again() else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take down a trial whose process failed once too often.

        Without an error there is nothing to do: the scheduler has told the ledger, or the
        search was interrupted and the trial stays an orphan.
        """
        if error:
            reason = self.last_errors.get(trial_id, "its process ended without a word")
            # Where the disk was at fault it goes on when that is mended.
            if told_storage_fault(reason) is None:
                self._ledger.fail(self.numbers[trial_id], reason)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: the journal holds all there is."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for a restore that we never ask for.
        return {}


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's questions about which trial goes on, answered from the ledger."""

    _supports_buffered_results = False

    def __init__(self, ledger: Ledger, searcher: StudySearcher) -> None:
        super().__init__()
        self._ledger = ledger
        self._searcher = searcher

    def on_trial_result(
        self, tune_controller: object, trial: tune_experiment.Trial, result: Mapping[str, Any]
    ) -> str:
        """Report an epoch, or the reason of a failure, and pass on what follows from it."""
        number = self._searcher.numbers[trial.trial_id]
        if result.get("halt"):
            self._ledger.halt(result["halt"])
            return str(TrialScheduler.STOP)
        if result.get("failure"):
            self._ledger.fail(number, result["failure"])
            return str(TrialScheduler.STOP)
        if result["epoch"] > self._ledger.last_epoch(number):
            # A process that is lost may be lost again: tries count anew with every new epoch.
            trial.max_failures = trial.run_metadata.num_failures + RETRIES_OF_A_LOST_PROCESS
        stop = self._ledger.report(number, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: tune_experiment.Trial) -> None:
        """Remember why a trial's process failed; Tune may yet try the trial again."""
        # An actor that failed before it ever ran leaves no file.
        if trial.error_file is not None:
            reason = _last_error(Path(trial.error_file))
            self._searcher.last_errors[trial.trial_id] = reason
            # Tune itself writes there before a trial begins.
            if fault := told_storage_fault(reason):
                self._ledger.halt(fault)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _last_error(error_file: Path) -> str:
    """The line that says it in Tune's error file: a traceback's last, or a dead process's first."""
    last = error_file.read_text().strip().split("Failure #")[-1].splitlines()[1:]
    lines = [line.strip() for line in last if line.strip()]
    if not lines:
        return "its process ended without a word"
    return lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]
