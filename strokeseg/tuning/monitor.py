"""A running search to look at: TensorBoard, the leaderboards, one line of progress.

Each axis's study has a `StudyMonitor`; Tune calls the `SearchMonitor` over them. Everything but
the pictures is written by the driver, from what the trials report, to the experiment's own
folder, so that it looks the same however many nodes there are. A trial has one event file for
each process that drove it, and is *closed* once its end is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune import experiment as tune_experiment

from strokeseg.process.progress import Show
from strokeseg.records.experiment import trial_events, trial_state, weights_files
from strokeseg.records.leaderboard import LeaderboardRow, write_leaderboard
from strokeseg.tuning.event_file import EventFile
from strokeseg.tuning.hparams import (
    BEST_DICE,
    CONFIGURATION,
    END,
    EPOCHS_RUN,
    START,
    configuration_summary,
    end_summary,
    is_written,
    start_summary,
)
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.searcher import StudySearcher
from strokeseg.tuning.space import Space

# All trials are gone through each time: with a thousand short ones that would take longer than
# to run them. With ten thousand, every two seconds were too often as well.
_SECONDS_BETWEEN_TIDIES = 2.0
_MOST_OF_THE_TIME = 0.05


class StudyMonitor:
    """Shows how one study goes and keeps its folder in order.

    Args:
        ledger: The study's truth.
        space: What the study searches.
        leaderboard_csv: Written when a trial has ended.
        tensorboard_folder: One folder of event files a trial.
        trials_folder: Where trials leave their files; those of losers are removed.
        kept: Says which trials' weights are worth keeping.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        space: Space,
        leaderboard_csv: Path,
        tensorboard_folder: Path,
        trials_folder: Path,
        kept: Callable[[list[LeaderboardRow]], set[int]],
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._leaderboard_csv = leaderboard_csv
        self._tensorboard_folder = tensorboard_folder
        self._trials_folder = trials_folder
        self._kept = kept
        self._writers: dict[int, EventFile] = {}
        self._ended = ledger.ended
        self._next_tidy = float("-inf")
        self._epochs_shown = {
            row.trial: row.epochs_run for row in ledger.rows() if row.state == "RUNNING"
        }
        self._closed: set[int] = set()
        self._with_weights: set[int] = set()

    def open(self) -> None:
        """Write what earlier processes left unwritten: the configuration, ends of trials."""
        if not is_written(self._tensorboard_folder, CONFIGURATION):
            with EventFile(self._tensorboard_folder) as writer:
                writer.add(configuration_summary(self._space, time.time()))
        for row in self._ledger.rows():
            if row.state == "RUNNING":
                continue
            trial_state(self._trials_folder, row.trial).unlink(missing_ok=True)
            self._with_weights.add(row.trial)
            if is_written(self._folder(row.trial), END):
                self._closed.add(row.trial)
        self.tidy()

    def start(self, number: int) -> None:
        """Enter a trial into the HParams table before its first epoch is over."""
        self._writer(self._ledger.row(number)).flush()

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Write an epoch's scalars; return whether the epoch is a new one."""
        row = self._ledger.row(number)
        epoch = result["epoch"]
        # A trial whose process was lost goes on in another one, which reports again.
        if epoch <= self._epochs_shown.get(row.trial, 0):
            return False
        writer = self._writer(row)
        for name, scalar in _scalars(result).items():
            writer.add_scalar(name, scalar, epoch)
        self._show_progress_of(row)
        writer.flush()
        return True

    def close(self) -> None:
        """Let go of the files of trials that were interrupted."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def tidy_if_due(self) -> bool:
        """Tidy if a trial has ended since, and not too often; return whether it did."""
        if time.monotonic() < self._next_tidy or self._ended == self._ledger.ended:
            return False
        self._ended = self._ledger.ended
        begun = time.monotonic()
        self.tidy()
        now = time.monotonic()
        self._next_tidy = now + max(_SECONDS_BETWEEN_TIDIES, (now - begun) / _MOST_OF_THE_TIME)
        return True

    def tidy(self) -> None:
        """Write the leaderboard; remove the states of ended trials and the losers' weights."""
        rows = self._ledger.rows()
        write_leaderboard(self._leaderboard_csv, rows)
        for row in rows:
            if row.state != "RUNNING" and row.trial not in self._closed:
                self._close(row)
        kept = self._kept(rows)
        for number in self._with_weights - kept:
            for path in weights_files(self._trials_folder, number):
                path.unlink(missing_ok=True)
        self._with_weights &= kept

    def _folder(self, number: int) -> Path:
        return trial_events(self._tensorboard_folder, number)

    def _writer(self, row: LeaderboardRow) -> EventFile:
        """Return a trial's open writer, with its session started."""
        writer = self._writers.get(row.trial)
        if writer is None:
            started = is_written(self._folder(row.trial), START)
            writer = EventFile(self._folder(row.trial))
            self._writers[row.trial] = writer
            if not started:
                writer.add(start_summary(self._space, row.parameters, time.time()))
        return writer

    def _show_progress_of(self, row: LeaderboardRow) -> None:
        """Write the metrics of the HParams table, as the ledger knows them."""
        writer = self._writer(row)
        # A k-fold trial has no score before the end of its first fold.
        if row.dice is not None:
            writer.add_scalar(BEST_DICE, row.dice, row.epochs_run)
        writer.add_scalar(EPOCHS_RUN, row.epochs_run, row.epochs_run)
        self._epochs_shown[row.trial] = row.epochs_run

    def _close(self, row: LeaderboardRow) -> None:
        """Remove a trial's state and write its end, with what a lost driver had left out."""
        trial_state(self._trials_folder, row.trial).unlink(missing_ok=True)
        self._with_weights.add(row.trial)
        writer = self._writer(row)
        if row.epochs_run > self._epochs_shown.pop(row.trial, 0):
            self._show_progress_of(row)
        writer.add(end_summary(row.state, time.time()))
        writer.close()
        del self._writers[row.trial]
        self._closed.add(row.trial)


class SearchMonitor(Callback):  # type: ignore[misc]
    """Tune's callback: passes on what happens to the monitor of the trial's axis.

    Args:
        monitors: By axis.
        ledgers: By axis.
        searcher: Knows which trial each of Tune's trials is.
        show: Called with epochs done, epochs in all, and a note, of all axes together.
    """

    def __init__(
        self,
        monitors: Mapping[str, StudyMonitor],
        ledgers: Mapping[str, Ledger],
        searcher: StudySearcher,
        show: Show,
    ) -> None:
        self._monitors = dict(monitors)
        self._ledgers = dict(ledgers)
        self._searcher = searcher
        self._show = show

    def setup(self, **info: object) -> None:
        """Write what earlier processes left unwritten."""
        for monitor in self._monitors.values():
            monitor.open()
        self.show()

    def on_trial_start(
        self,
        iteration: int,
        trials: list[tune_experiment.Trial],
        trial: tune_experiment.Trial,
        **info: object,
    ) -> None:
        """Enter a trial into its study's HParams table."""
        axis, number = self._searcher.keys[trial.trial_id]
        self._monitors[axis].start(number)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[tune_experiment.Trial],
        trial: tune_experiment.Trial,
        result: Mapping[str, Any],
        **info: object,
    ) -> None:
        """Write an epoch's scalars and move the progress on."""
        axis, number = self._searcher.keys[trial.trial_id]
        if "epoch" in result and self._monitors[axis].report(number, result):
            self.show()

    def on_step_end(
        self, iteration: int, trials: list[tune_experiment.Trial], **info: object
    ) -> None:
        """Bring the leaderboards up to date in which a trial has ended."""
        tidied = [monitor.tidy_if_due() for monitor in self._monitors.values()]
        if any(tidied):
            self.show()

    def on_experiment_end(self, trials: list[tune_experiment.Trial], **info: object) -> None:
        """Let go of the files of trials that were interrupted."""
        for monitor in self._monitors.values():
            monitor.close()

    def tidy(self) -> None:
        """Bring all leaderboards and folders up to date."""
        for monitor in self._monitors.values():
            monitor.tidy()
        self.show()

    def show(self, doing: str = "") -> None:
        """Show how far the search is, what is best so far, and what else is being done."""
        ledgers = self._ledgers.values()
        notes = [
            _note(ledger, "trials" if len(ledgers) == 1 else axis)
            for axis, ledger in self._ledgers.items()
        ]
        self._show(
            sum(ledger.epochs_done() for ledger in ledgers),
            sum(ledger.epochs_in_all() for ledger in ledgers),
            ", ".join([*notes, doing] if doing else notes),
        )

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for a restore that we never ask for.
        return {}


def _note(ledger: Ledger, name: str) -> str:
    note = f"{name} {ledger.trials - ledger.remaining()}/{ledger.trials}"
    best = ledger.best()
    return note if best is None else f"{note}, best Dice {best.dice:.3f} (trial {best.trial})"


def _scalars(result: Mapping[str, Any]) -> dict[str, float]:
    return {
        "validation/dice": result["dice"],
        "training/learning_rate": result["learning_rate"],
        "training/slices_per_second": result["slices_per_second"],
        "training/wait_share": result["wait_share"],
        "training/memory_gb": result["memory_gb"],
        **{f"loss/{term}": loss for term, loss in result["losses"].items()},
    }
