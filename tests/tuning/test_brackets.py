"""Brackets decide as Optuna's own pruners do, and remember as they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState

from strokeseg.tuning.brackets import Brackets
from strokeseg.tuning.journal import open_journal


def study_in(path: Path) -> optuna.Study:
    return optuna.create_study(
        storage=open_journal(path), study_name="axial", direction="maximize", load_if_exists=True
    )


def frozen(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
    return study.get_trials(deepcopy=False)[number]


@pytest.mark.parametrize(
    ("first_rung", "epochs", "reduction_factor"),
    [(1, 4, 3), (1, 9, 3), (2, 9, 2), (1, 16, 2), (3, 4, 8), (4, 4, 3), (5, 4, 3)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_decisions_are_those_of_optuna_on_any_history(
    tmp_path: Path, first_rung: int, epochs: int, reduction_factor: int, seed: int
) -> None:
    theirs, ours = study_in(tmp_path / "theirs.log"), study_in(tmp_path / "ours.log")
    pruner = HyperbandPruner(first_rung, epochs, reduction_factor)
    settings = {"first_rung": first_rung, "epochs": epochs, "reduction_factor": reduction_factor}
    brackets = Brackets(**settings)
    generator = np.random.default_rng(seed)
    trials = {}
    decisions = []
    for event in range(160):
        # Up to five run side by side; one in ten reports every other epoch only.
        if len(trials) < 5 and generator.random() < 0.4:
            number = theirs.ask().number
            assert ours.ask().number == number
            trials[number] = 0
        if not trials:
            continue
        number = int(generator.choice(list(trials)))
        trials[number] += 2 if generator.random() < 0.1 else 1
        # Few values, so that some are equal.
        score = float(generator.integers(0, 6)) / 6
        told = []
        for study, judge in ((theirs, pruner), (ours, brackets)):
            trial = optuna.Trial(study, frozen(study, number)._trial_id)
            trial.report(score, trials[number])
            told.append(judge.prune(study, frozen(study, number)))
        assert told[0] == told[1], f"event {event}, trial {number}, epoch {trials[number]}"
        assert frozen(ours, number).system_attrs == frozen(theirs, number).system_attrs
        decisions.append(told[0])
        if told[0] or trials[number] >= epochs:
            del trials[number]
            for study in (theirs, ours):
                study.tell(number, state=TrialState.PRUNED)
        if event % 50 == 49:
            # As another process would go on.
            ours, brackets = study_in(tmp_path / "ours.log"), Brackets(**settings)
    # With the first rung beyond the last epoch there is nothing to decide.
    assert any(decisions) == (first_rung <= epochs) and not all(decisions)


def test_most_trials_are_dealt_to_the_bracket_of_the_most_rungs(tmp_path: Path) -> None:
    # Three brackets of 9 epochs get, as Hyperband has it, ceil(3 * 9 / 3), ceil(3 * 3 / 2) and
    # ceil(3 * 1 / 1) of every 9 + 5 + 3 trials.
    study = study_in(tmp_path / "journal.log")
    brackets = Brackets(first_rung=1, epochs=9, reduction_factor=3)
    dealt = np.bincount([brackets.bracket(study, number) for number in range(3400)]) / 200
    np.testing.assert_allclose(dealt, [9, 5, 3], rtol=0.1)


def test_a_score_that_is_no_number_is_beaten_and_forgotten(tmp_path: Path) -> None:
    study = study_in(tmp_path / "journal.log")
    brackets = Brackets(first_rung=1, epochs=4, reduction_factor=8)
    for score, beaten in ((float("nan"), True), (0.5, False), (0.4, True), (0.6, False)):
        trial = study.ask()
        trial.report(score, 1)
        assert brackets.prune(study, frozen(study, trial.number)) is beaten
