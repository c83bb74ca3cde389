"""One study's truth, and the two ways in which Ray Tune asks for it.

The *ledger* is what has been proposed, reported and decided, kept in Optuna's journal as
it happens: it alone says what a resumed search still has to do. A *trial's number* is its
number in the journal; Tune's own trial identifiers mean nothing after the process ends.
Every trial ends in one state: COMPLETE with its best score, PRUNED when the asynchronous
successive halving stopped it, FAIL with a reason. A trial that was running when the search
was interrupted stays RUNNING, an *orphan*, and is handed out again under its own number.

Tune's own schedulers forget with the driver what they saw, and its OptunaSearch tells a
stopped trial as complete. Hence `StudyScheduler` and `StudySearcher`, both thin: Tune asks
them, they ask the ledger.

Source of the early stopping: Li et al., A System for Massively Parallel Hyperparameter
Tuning, MLSys 2020 (Optuna's `SuccessiveHalvingPruner`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune import experiment as tune_experiment
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from strokeseg.config import TrialConfig
from strokeseg.leaderboard import LeaderboardRow
from strokeseg.tuning.space import Space, plain

SCORE = "dice"
_CONFIG, _SECONDS, _ENDING = "config", "seconds", "ending"


class Ledger:
    """The study of one axis.

    Args:
        study: Optuna's study, in which this process alone writes.
        space: What may be proposed.
        trials: How many trials the study shall have in the end.
        epochs: Epochs of a trial that is never stopped early.
        seed: Seed of the study.
    """

    def __init__(
        self, study: optuna.Study, space: Space, *, trials: int, epochs: int, seed: int
    ) -> None:
        self._study = study
        self._space = space
        self._trials = trials
        self._epochs = epochs
        self._seed = seed
        self._running: dict[int, optuna.Trial] = {}
        self._orphans = [trial.number for trial in study.get_trials(states=(TrialState.RUNNING,))]

    @property
    def epochs(self) -> int:
        """Epochs of a trial that is never stopped early."""
        return self._epochs

    @property
    def trials(self) -> int:
        """How many trials the study shall have in the end."""
        return self._trials

    def remaining(self) -> int:
        """How many trials are still to be run or finished."""
        finished = sum(trial.state.is_finished() for trial in self._started())
        return max(0, self._trials - finished)

    def ask(self) -> tuple[int, TrialConfig] | None:
        """Return the next trial's number and configuration, orphans first, or nothing."""
        while self._orphans:
            number = self._orphans.pop(0)
            proposal = self._propose(number)
            # The driver may have died between an epoch's report and what follows from it.
            ending = self._frozen(number).user_attrs.get(_ENDING)
            reported = self.last_epoch(number)
            if ending is not None:
                self._end(number, TrialState[ending["state"]], ending["reason"])
            elif reported == 0 or not self._decide(number, reported):
                return proposal
        started = len(self._started())
        return self._propose(started) if started < self._trials else None

    def last_epoch(self, number: int) -> int:
        """Return the last epoch that a trial reported, 0 before the first."""
        return max(self._frozen(number).intermediate_values, default=0)

    def report(self, number: int, epoch: int, dice: float, seconds: float) -> bool:
        """Take down an epoch's score; return whether the trial shall stop here.

        Args:
            number: The trial.
            epoch: From 1.
            dice: Mean 3D Dice over the validation patients.
            seconds: Time spent on the trial so far, earlier processes included.
        """
        trial = self._running[number]
        if epoch > self.last_epoch(number):
            trial.report(dice, epoch)
            trial.set_user_attr(_SECONDS, seconds)
        return self._decide(number, epoch)

    def fail(self, number: int, reason: str) -> None:
        """Take down that a trial failed, and why."""
        self._end(number, TrialState.FAIL, " ".join(reason.split()))

    def rows(self) -> list[LeaderboardRow]:
        """Return the leaderboard's records of all trials that were started."""
        return [_row(trial) for trial in self._started() if _CONFIG in trial.user_attrs]

    def row(self, number: int) -> LeaderboardRow:
        """Return the record of one trial that was started."""
        return _row(self._frozen(number))

    def epochs_done(self) -> int:
        """Return the epochs run, with finished trials counted as if never stopped early."""
        return sum(
            self._epochs if trial.state.is_finished() else max(trial.intermediate_values, default=0)
            for trial in self._started()
        )

    def _propose(self, number: int) -> tuple[int, TrialConfig]:
        # A sampler seeded trial by trial proposes the same after a restart as without one.
        self._study.sampler = _sampler(self._seed + number, self._trials)
        if number < len(self._started()):
            trial = optuna.Trial(self._study, self._frozen(number)._trial_id)
        else:
            trial = self._study.ask()
        config = self._space.ask(trial)
        trial.set_user_attr(_CONFIG, plain(config))
        self._running[number] = trial
        return number, config

    def _decide(self, number: int, epoch: int) -> bool:
        """End a trial that has run its epochs or that others have beaten; return whether."""
        if epoch >= self._epochs:
            self._end(number, TrialState.COMPLETE, "")
            return True
        if self._running[number].should_prune():
            reason = f"stopped after epoch {epoch}: others were better"
            self._end(number, TrialState.PRUNED, reason)
            return True
        return False

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        trial = self._running.pop(number)
        trial.set_user_attr(_ENDING, {"state": state.name, "reason": reason})
        scores = self._frozen(number).intermediate_values.values()
        best = max(scores) if state is TrialState.COMPLETE else None
        self._study.tell(trial, best, state=state)

    def _started(self) -> list[FrozenTrial]:
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state is not TrialState.WAITING
        ]

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def _sampler(seed: int, trials: int) -> TPESampler:
    return TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        n_startup_trials=min(10, max(3, trials // 3)),
    )


def _row(trial: FrozenTrial) -> LeaderboardRow:
    scores = trial.intermediate_values
    best_epoch = max(scores, key=lambda epoch: (scores[epoch], -epoch), default=None)
    return LeaderboardRow(
        trial=trial.number,
        state=trial.state.name,
        dice=None if best_epoch is None else scores[best_epoch],
        best_epoch=best_epoch,
        epochs_run=max(scores, default=0),
        seconds=float(trial.user_attrs.get(_SECONDS, 0.0)),
        reason=str(trial.user_attrs.get(_ENDING, {}).get("reason", "")),
        parameters=dict(trial.user_attrs[_CONFIG]),
    )


class StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's questions about which trial comes next, answered from the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.numbers: dict[str, int] = {}
        self.last_errors: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next trial's configuration for `tuning.trial`, or that there is none."""
        proposal = self._ledger.ask()
        if proposal is None:
            return str(Searcher.FINISHED)
        number, config = proposal
        self.numbers[trial_id] = number
        return {
            "number": number,
            "config": plain(config),
            "reported_epoch": self._ledger.last_epoch(number),
        }

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take down a trial whose process failed once too often.

        Without an error there is nothing to do: the scheduler has told the ledger, or the
        search was interrupted and the trial stays an orphan.
        """
        if error:
            reason = self.last_errors.get(trial_id, "its process ended without a word")
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
        if result.get("failure"):
            self._ledger.fail(number, result["failure"])
            return str(TrialScheduler.STOP)
        stop = self._ledger.report(number, result["epoch"], result[SCORE], result["seconds"])
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: tune_experiment.Trial) -> None:
        """Remember why a trial's process failed; Tune may yet try the trial again."""
        # An actor that failed before it ever ran leaves no file.
        if trial.error_file is not None:
            self._searcher.last_errors[trial.trial_id] = _last_error(Path(trial.error_file))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _last_error(error_file: Path) -> str:
    """The line that says it in Tune's error file: a traceback's last, or a dead process's first."""
    last = error_file.read_text().strip().split("Failure #")[-1].splitlines()[1:]
    lines = [line.strip() for line in last if line.strip()]
    if not lines:
        return "its process ended without a word"
    return lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]
