"""Brackets: asynchronous successive halving as in Hyperband, without going through all trials.

A *rung* is an epoch at which a trial's score is compared with those of all who came there
before: of each `reduction_factor` the best goes on. A *bracket* is a set of trials with rungs
of their own: in each bracket the first rung comes later than in the one before. Trials are
dealt out to the brackets by a hash of their number, more to the earlier ones.

Optuna's HyperbandPruner goes through all trials of the study at every rung, and hashes the
number of each. Here a rung's scores are kept in order, so that a report costs the logarithm of
their number. Decisions are Optuna's own, and so is what the journal keeps of them: a score at
a rung is an attribute of its trial, from which a later process takes it up.

Source:
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; Li et al.,
    Hyperband, JMLR 2018 (brackets). Both as Optuna's pruners have them.
"""

from __future__ import annotations

import math
from binascii import crc32
from bisect import insort
from itertools import accumulate

import optuna
from optuna.trial import FrozenTrial


class Brackets:
    """The rungs of one study and the scores at them, the higher the better.

    Args:
        first_rung: Epoch of the first bracket's first rung.
        epochs: Epochs of a trial that is never stopped early.
        reduction_factor: Of the trials at a rung, one in this many goes on.
    """

    def __init__(self, *, first_rung: int, epochs: int, reduction_factor: int) -> None:
        self._first_rung = first_rung
        self._factor = reduction_factor
        count = math.floor(math.log(epochs / first_rung, reduction_factor)) + 1
        # Brackets that start later have fewer rungs, and get trials for about the same epochs.
        self._ends = list(
            accumulate(
                math.ceil(count * reduction_factor**rungs / (rungs + 1))
                for rungs in reversed(range(count))
            )
        )
        self._study: optuna.Study | None = None
        self._scores: dict[tuple[int, int], list[float]] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Tell whether enough others of the trial's bracket were better at a rung it came to.

        Args:
            study: In which this process alone writes. Another than in the last call is read.
            trial: With its last epoch's score.
        """
        if study is not self._study:
            self._read(study)
        step = trial.last_step
        if step is None or not self._ends:
            return False
        bracket, score = self.bracket(study, trial.number), trial.intermediate_values[step]
        rung = 0
        while _key(rung) in trial.system_attrs:
            rung += 1
        while step >= self._first_rung * self._factor ** (bracket + rung):
            if math.isnan(score):
                return True
            study._storage.set_trial_system_attr(trial._trial_id, _key(rung), score)
            scores = self._scores.setdefault((bracket, rung), [])
            insort(scores, score)
            if score < scores[-max(1, len(scores) // self._factor)]:
                return True
            rung += 1
        return False

    def bracket(self, study: optuna.Study, number: int) -> int:
        """Return the bracket, from 0, to which a trial was dealt out."""
        card = crc32(f"{study.study_name}_{number}".encode()) % self._ends[-1]
        return next(bracket for bracket, end in enumerate(self._ends) if card < end)

    def _read(self, study: optuna.Study) -> None:
        self._study = study
        self._scores = {}
        for trial in study.get_trials(deepcopy=False) if self._ends else ():
            rung = 0
            while (score := trial.system_attrs.get(_key(rung))) is not None:
                place = (self.bracket(study, trial.number), rung)
                self._scores.setdefault(place, []).append(score)
                rung += 1
        for scores in self._scores.values():
            scores.sort()


def _key(rung: int) -> str:
    return f"completed_rung_{rung}"
