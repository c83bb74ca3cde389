"""What a trial's score is, and when a trial is beaten.

*Scoring on one fold*: a trial reports its mean 3D Dice after every epoch, its score is the
best of them, and asynchronous successive halving stops it at a *rung*, an epoch by which
others were better. A trial belongs to one of several *brackets*, in which the first rung comes
later and later, so that slow starters get their chance (Optuna's `HyperbandPruner`).

*Scoring k-fold*: a trial trains one network a fold, one after the other. Its score is the
mean over all patients of their Dice, each by the network that has not seen them. It is
stopped after a fold when a paired Wilcoxon test over the patients so far finds it worse than
the best trial.

Source:
    Wilcoxon, Individual Comparisons by Ranking Methods, 1945, as Optuna's pruner has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, pstdev
from typing import Any, Protocol

import optuna
from optuna.pruners import HyperbandPruner, WilcoxonPruner
from optuna.trial import FrozenTrial

SCORE = "dice"
_PROGRESS = "progress"
# The chance that is taken of stopping a trial that is as good as the best one.
_WILCOXON_P = 0.1


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a trial has come.

    Attributes:
        dice: Its score so far, if there is one.
        spread: Standard deviation of the Dice over the patients behind the score.
        best_epoch: Epoch of the score, from 1; None where every fold has its own.
        epochs: Epochs reported.
        seconds: Time spent on them.
        device_hours: Hours of one GPU, or of one CPU thread where there is none, spent on them.
    """

    dice: float | None
    spread: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    device_hours: float


class Scoring(Protocol):
    """How reports become a score, and a trial is stopped."""

    epochs: int

    def record(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Write what an epoch reported into the journal."""

    def standing(self, trial: FrozenTrial) -> Standing:
        """Read from the journal how far a trial has come."""

    def is_beaten(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reported shall be stopped."""


class FoldScoring:
    """Scoring on one fold.

    Args:
        epochs: Epochs of a trial that is never stopped early.
        grace_epochs: The first rung of the first bracket.
        reduction_factor: Of the trials at a rung, one in this many goes on.
    """

    def __init__(self, *, epochs: int, grace_epochs: int, reduction_factor: int) -> None:
        self.epochs = epochs
        self._pruner = HyperbandPruner(
            min_resource=grace_epochs, max_resource=epochs, reduction_factor=reduction_factor
        )

    def record(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Write an epoch's score and what was spent so far."""
        before = trial.user_attrs.get(_PROGRESS, {})
        best = before.get("best")
        progress = {**_spent(result), "best": best, "spread": before.get("spread")}
        if best is None or result[SCORE] > best:
            progress.update(best=result[SCORE], spread=result["spread"])
        trial.set_user_attr(_PROGRESS, progress)
        trial.report(result[SCORE], result["epoch"])

    def standing(self, trial: FrozenTrial) -> Standing:
        """Read the best score, its epoch, and the epochs reported."""
        scores = trial.intermediate_values
        best = max(scores, key=lambda epoch: (scores[epoch], -epoch), default=None)
        progress = trial.user_attrs.get(_PROGRESS, {})
        return Standing(
            dice=None if best is None else scores[best],
            spread=progress.get("spread"),
            best_epoch=best,
            epochs=max(scores, default=0),
            seconds=progress.get("seconds", 0.0),
            device_hours=progress.get("device_hours", 0.0),
        )

    def is_beaten(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether enough others of the trial's bracket were better up to this rung."""
        # Optuna would compare what the rung's own epoch happened to give; a trial's score is its
        # best epoch so far.
        scores = sorted(trial.intermediate_values.items())
        best = accumulate((score for _, score in scores), max)
        so_far = copy(trial)
        so_far.intermediate_values = dict(zip((e for e, _ in scores), best, strict=True))
        return self._pruner.prune(study, so_far)


class KFoldScoring:
    """Scoring k-fold.

    Args:
        epochs_per_fold: Epochs of each fold's network.
        folds: The cases of each fold.
    """

    def __init__(self, *, epochs_per_fold: int, folds: Sequence[Sequence[str]]) -> None:
        self.epochs = epochs_per_fold * len(folds)
        self._epochs_per_fold = epochs_per_fold
        cases = [case for fold in folds for case in fold]
        self._steps = {case: step for step, case in enumerate(cases)}
        self._pruner = WilcoxonPruner(p_threshold=_WILCOXON_P)

    def record(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Write what was spent and, with a fold's last epoch, the Dice of its patients."""
        for case, dice in result.get("case_dice", ()):
            trial.report(dice, self._steps[case])
        trial.set_user_attr(_PROGRESS, _spent(result))

    def standing(self, trial: FrozenTrial) -> Standing:
        """Read the mean over the patients so far, and the epochs reported."""
        scores = list(trial.intermediate_values.values())
        progress = trial.user_attrs.get(_PROGRESS, {})
        return Standing(
            dice=fmean(scores) if scores else None,
            spread=pstdev(scores) if scores else None,
            best_epoch=None,
            epochs=progress.get("epoch", 0),
            seconds=progress.get("seconds", 0.0),
            device_hours=progress.get("device_hours", 0.0),
        )

    def is_beaten(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the patients of the folds so far tell that the trial is worse."""
        at_the_end_of_a_fold = self.standing(trial).epochs % self._epochs_per_fold == 0
        return at_the_end_of_a_fold and bool(self._pruner.prune(study, trial))


def _spent(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("epoch", "seconds", "device_hours")}
