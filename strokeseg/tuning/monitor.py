"""A running study to look at: TensorBoard, the leaderboard, one line of progress.

Everything is written by the driver, from what the trials report, to the experiment's own
folder, so that it looks the same however many nodes there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune import experiment as tune_experiment
from torch.utils.tensorboard import SummaryWriter

from strokeseg.experiment import trial_state, weights_files
from strokeseg.leaderboard import LeaderboardRow, write_leaderboard
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.searcher import StudySearcher

# All trials are gone through each time: with a thousand short ones that would take longer than
# to run them.
_SECONDS_BETWEEN_TIDIES = 2.0


class Monitor(Callback):  # type: ignore[misc]
    """Tune's callback that shows how the study goes and keeps its folder in order.

    Args:
        ledger: The study's truth.
        searcher: Knows the numbers of Tune's trials.
        leaderboard_csv: Written when a trial has ended.
        tensorboard_folder: One folder of event files a trial.
        trials_folder: Where trials leave their files; those of losers are removed.
        kept: Says which trials' weights are worth keeping.
        show: Called with epochs done, epochs in all, and a note.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        searcher: StudySearcher,
        leaderboard_csv: Path,
        tensorboard_folder: Path,
        trials_folder: Path,
        kept: Callable[[list[LeaderboardRow]], set[int]],
        show: Callable[[int, int, str], None],
    ) -> None:
        self._ledger = ledger
        self._searcher = searcher
        self._leaderboard_csv = leaderboard_csv
        self._tensorboard_folder = tensorboard_folder
        self._trials_folder = trials_folder
        self._kept = kept
        self._show = show
        self._writers: dict[int, SummaryWriter] = {}
        self._ended = ledger.ended
        self._tidied = float("-inf")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[tune_experiment.Trial],
        trial: tune_experiment.Trial,
        result: Mapping[str, Any],
        **info: object,
    ) -> None:
        """Write an epoch's scalars and move the progress on."""
        if "epoch" not in result:
            return
        number = self._searcher.numbers[trial.trial_id]
        writer = self._writers.get(number)
        if writer is None:
            writer = SummaryWriter(str(self._tensorboard_folder / f"{number:04d}"))
            self._writers[number] = writer
        scalars = {
            "validation/dice": result["dice"],
            "training/learning_rate": result["learning_rate"],
            "training/slices_per_second": result["slices_per_second"],
            **{f"loss/{term}": loss for term, loss in result["losses"].items()},
        }
        for name, scalar in scalars.items():
            writer.add_scalar(name, scalar, result["epoch"])
        writer.flush()
        self.show()

    def on_step_end(
        self, iteration: int, trials: list[tune_experiment.Trial], **info: object
    ) -> None:
        """Bring the leaderboard up to date when a trial has ended."""
        due = time.monotonic() - self._tidied > _SECONDS_BETWEEN_TIDIES
        if due and self._ended != self._ledger.ended:
            self._ended = self._ledger.ended
            self.tidy()
            self._tidied = time.monotonic()

    def show(self, doing: str = "") -> None:
        """Show how far the study is, what is best so far, and what else is being done."""
        finished = self._ledger.trials - self._ledger.remaining()
        best = self._ledger.best()
        note = f"trials {finished}/{self._ledger.trials}"
        if best is not None:
            note += f", best Dice {best.dice:.3f} (trial {best.trial})"
        if doing:
            note += f", {doing}"
        self._show(self._ledger.epochs_done(), self._ledger.epochs_in_all(), note)

    def tidy(self) -> None:
        """Write the leaderboard; remove the states of ended trials and the losers' weights."""
        rows = self._ledger.rows()
        write_leaderboard(self._leaderboard_csv, rows)
        kept = self._kept(rows)
        for row in rows:
            if row.state == "RUNNING":
                continue
            trial_state(self._trials_folder, row.trial).unlink(missing_ok=True)
            if row.trial not in kept:
                for path in weights_files(self._trials_folder, row.trial):
                    path.unlink(missing_ok=True)
            if (writer := self._writers.pop(row.trial, None)) is not None:
                writer.close()
        self.show()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for a restore that we never ask for.
        return {}
