"""The entries of a study's journal: what is written down of each trial, and read again.

An *entry* is one trial of Optuna's study with the attributes that we give it. A trial that was
running when its process ended is an *orphan*; one that is queued to be tried first is *waiting*;
one whose configuration was run before *repeats* it, and is dropped. Nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from strokeseg.records.config import TrialConfig
from strokeseg.records.leaderboard import SAMPLER, LeaderboardRow
from strokeseg.tuning.scoring import Scoring
from strokeseg.tuning.space import ORIGIN, Space, plain

_Finite = Annotated[float, Field(allow_inf_nan=False)]
INHERITED = "inherited"
CONFIG = "config"
_ENDING, _CONFIRMS, _REPEATS = "ending", "confirms", "repeats"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to be run: its number, its configuration, and the last epoch it reported."""

    number: int
    config: TrialConfig
    reported_epoch: int


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts: it is no confirmation, not inherited, and repeats no other."""
    return not {_CONFIRMS, INHERITED, _REPEATS} & trial.user_attrs.keys()


def may_be_inherited(trial: FrozenTrial) -> bool:
    """Whether a later study may take a trial over, one that was itself inherited included."""
    return not {_CONFIRMS, _REPEATS} & trial.user_attrs.keys()


def repeats_another(trial: FrozenTrial) -> bool:
    """Whether a trial was found to repeat another."""
    return trial.user_attrs.get(_REPEATS) is not None


def verdict(trial: FrozenTrial) -> tuple[TrialState, str] | None:
    """Return how a trial was to end, and why, when that is written of one that still runs."""
    ending = trial.user_attrs.get(_ENDING)
    return None if ending is None else (TrialState[ending["state"]], ending["reason"])


class _Progress(TypedDict, total=False):
    epoch: int
    seconds: _Finite | None
    device_hours: _Finite | None
    best: _Finite | None
    spread: _Finite | None


class _Ending(TypedDict):
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    reason: str


class _Attributes(TypedDict, total=False):
    """What we keep of a trial, as far as it is read again."""

    config: dict[str, Any]
    ending: _Ending
    progress: _Progress
    confirms: int
    repeats: int
    inherited: bool
    origin: str


class _StudyAttributes(TypedDict, total=False):
    """What we keep of a study."""

    settings: dict[str, Any]
    weights: dict[str, str]
    extended_to: int
    searched_seconds: _Finite


_ATTRIBUTES, _STUDY_ATTRIBUTES = TypeAdapter(_Attributes), TypeAdapter(_StudyAttributes)


def check_study(study: optuna.Study) -> None:
    """Check that a study that was read says what we keep of one, and so does every entry.

    Raises:
        ValueError: When it says anything else.
    """
    _STUDY_ATTRIBUTES.validate_python(study.user_attrs, strict=True)
    for trial in study.get_trials(deepcopy=False):
        _check_entry(trial)


def _check_entry(trial: FrozenTrial) -> None:
    attributes = _ATTRIBUTES.validate_python(trial.user_attrs, strict=True)
    if (config := attributes.get("config")) is not None:
        TrialConfig.model_validate(config, strict=True)
    # Optuna compares parameters with their distributions when it makes a trial, not when it reads.
    optuna.create_trial(params=trial.params, distributions=trial.distributions, value=0.0)
    scores = trial.intermediate_values
    if not all(math.isfinite(score) for score in scores.values()) or min(scores, default=0) < 0:
        raise ValueError(f"trial {trial.number} has scores that are no numbers")


class Entries:
    """The entries of one study.

    Args:
        study: Optuna's study, in which this process alone writes.
        space: What may be proposed.
        scoring: What a trial's score is, and when a trial is beaten.
        sampler: Gives the sampler of the trial of a number.

    Attributes:
        running: Trials that this process has started or resumed, and not ended.
        orphans: Numbers of the trials that have yet to be resumed.
        waiting: Numbers of the trials that are queued.
        next_number: The number of the next trial that is neither.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        scoring: Scoring,
        sampler: Callable[[int], BaseSampler],
    ) -> None:
        self.running: dict[int, optuna.Trial] = {}
        self.orphans: list[int] = []
        self.waiting: list[int] = []
        self.next_number = 0
        self._study = study
        self._space = space
        self._scoring = scoring
        self._sampler = sampler
        self._rows: dict[int, LeaderboardRow] = {}
        for trial in study.get_trials(deepcopy=False):
            self.next_number = trial.number + 1
            if trial.state is TrialState.WAITING:
                self.waiting.append(trial.number)
                continue
            if trial.state is TrialState.RUNNING:
                self.orphans.append(trial.number)
            if _REPEATS not in trial.user_attrs:
                self._rows[trial.number] = self._read(trial)

    def rows(self) -> list[LeaderboardRow]:
        """Return the rows of all trials that were begun, by number; repeats are left out."""
        return [self._rows[number] for number in sorted(self._rows)]

    def row(self, number: int) -> LeaderboardRow:
        """Return the row of one trial."""
        return self._rows[number]

    def sample(self, number: int) -> Proposal:
        """Let the sampler choose the trial that is due under a number."""
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        if trial.number != number:
            raise RuntimeError(f"trial {number} was due, Optuna started {trial.number}")
        return self._start(trial)

    def resume(self, number: int) -> tuple[Proposal, FrozenTrial]:
        """Resume an orphan; return it, and its entry as it was found."""
        self._study.sampler = self._sampler(number)
        frozen = self._frozen(number)
        return self._start(self._running(frozen)), frozen

    def confirm(self, number: int) -> Proposal:
        """Begin a further run of a trial."""
        original = self._frozen(number)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=original.params,
                distributions=original.distributions,
                user_attrs={_CONFIRMS: number, ORIGIN: f"confirms trial {number}"},
            )
        )
        return self._start(self._running(self._frozen(-1)))

    def report(self, number: int, result: Mapping[str, Any]) -> None:
        """Record an epoch."""
        self._scoring.record(self.running[number], result)
        self._rows[number] = self._read(self._frozen(number))

    def is_beaten(self, number: int) -> bool:
        """Whether a trial that has just reported shall be stopped."""
        return self._scoring.is_beaten(self._study, self._frozen(number))

    def drop(self, number: int, earlier: int) -> None:
        """End a trial that repeats an earlier one; it does not count."""
        trial = self.running.pop(number)
        trial.set_user_attr(_REPEATS, earlier)
        self._study.tell(trial, state=TrialState.FAIL)
        del self._rows[number]

    def end(self, number: int, state: TrialState, reason: str) -> LeaderboardRow:
        """Write down how a trial ended, the verdict first; return its row."""
        trial = self.running[number]
        trial.set_user_attr(_ENDING, {"state": state.name, "reason": reason})
        value = self.row(number).dice if state is TrialState.COMPLETE else None
        self._study.tell(trial, value, state=state)
        del self.running[number]
        self._rows[number] = self._read(self._frozen(number))
        return self._rows[number]

    def _start(self, trial: optuna.Trial) -> Proposal:
        config = self._space.ask(trial)
        trial.set_user_attr(CONFIG, plain(config))
        self.running[trial.number] = trial
        self.next_number = max(self.next_number, trial.number + 1)
        row = self._rows[trial.number] = self._read(self._frozen(trial.number))
        return Proposal(number=trial.number, config=config, reported_epoch=row.epochs_run)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _running(self, trial: FrozenTrial) -> optuna.Trial:
        # Optuna has no public way to go on with a trial of another process.
        return optuna.Trial(self._study, trial._trial_id)

    def _read(self, trial: FrozenTrial) -> LeaderboardRow:
        standing = self._scoring.standing(trial)
        attributes = trial.user_attrs
        return LeaderboardRow(
            trial=trial.number,
            state=trial.state.name,
            dice=standing.dice,
            spread=standing.spread,
            best_epoch=standing.best_epoch,
            epochs_run=standing.epochs,
            seconds=standing.seconds,
            device_hours=standing.device_hours,
            reason=str(attributes.get(_ENDING, {}).get("reason", "")),
            origin=str(attributes.get(ORIGIN, SAMPLER)),
            confirms=attributes.get(_CONFIRMS),
            inherited=INHERITED in attributes,
            listed=attributes.get(INHERITED, True),
            parameters=dict(attributes.get(CONFIG, {})),
        )
