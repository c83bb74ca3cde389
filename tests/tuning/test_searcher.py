"""The ledger: every ending told as it was, nothing lost by an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune

from strokeseg.config import TrialConfig
from strokeseg.tuning.searcher import Ledger, StudyScheduler, StudySearcher
from strokeseg.tuning.space import Dimension, Space, plain

EPOCHS = 4
SPACE = Space(
    dimensions={
        "learning_rate": Dimension(low=1e-4, high=1e-2, log=True),
        "lesion_share": Dimension(low=0.0, high=1.0),
        "batch_size": Dimension(choices=(8, 16)),
    },
    first=(),
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def opened(journal: Path, trials: int = 3, seed: int = 0, grace: int = 1) -> Ledger:
    """Open a ledger as a new process would, on the journal's file."""
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="axial",
        direction="maximize",
        pruner=SuccessiveHalvingPruner(min_resource=grace, reduction_factor=2),
        load_if_exists=True,
    )
    return Ledger(study, SPACE, trials=trials, epochs=EPOCHS, seed=seed)


def trials_of(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """Read the journal with plain Optuna."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="axial", storage=storage).trials


def asked(ledger: Ledger) -> tuple[int, TrialConfig]:
    proposal = ledger.ask()
    assert proposal is not None
    return proposal


def trained(ledger: Ledger, number: int, *scores: float) -> bool:
    """Report scores from the first epoch on, 10 seconds each, until told to stop."""
    return any(
        ledger.report(number, epoch, score, 10.0 * epoch)
        for epoch, score in enumerate(scores, start=1)
    )


def test_a_finished_trial_is_complete_with_its_best_score_not_its_last(journal: Path) -> None:
    ledger = opened(journal)
    number, config = asked(ledger)
    assert trained(ledger, number, 0.1, 0.6, 0.3, 0.2)
    (trial,) = trials_of(journal)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.6)
    assert trial.intermediate_values == {1: 0.1, 2: 0.6, 3: 0.3, 4: 0.2}
    (row,) = ledger.rows()
    assert (row.state, row.dice, row.best_epoch, row.epochs_run) == ("COMPLETE", 0.6, 2, 4)
    assert (row.seconds, row.reason, row.parameters) == (40.0, "", plain(config))


def test_a_trial_worse_than_others_is_pruned_with_its_epochs_and_a_reason(journal: Path) -> None:
    ledger = opened(journal)
    good, _ = asked(ledger)
    trained(ledger, good, 0.5, 0.5, 0.5, 0.5)
    bad, _ = asked(ledger)
    # One of two goes on from each rung, and the first rung is epoch 1: 0.1 is the lower half.
    assert ledger.report(bad, 1, 0.1, 5.0)
    trial = trials_of(journal)[bad]
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    row = ledger.rows()[bad]
    assert (row.state, row.dice, row.epochs_run) == ("PRUNED", 0.1, 1)
    assert row.reason == "stopped after epoch 1: others were better"


def test_nothing_is_pruned_before_its_grace_is_over(journal: Path) -> None:
    ledger = opened(journal, grace=3)
    good, _ = asked(ledger)
    trained(ledger, good, 0.5, 0.5, 0.5, 0.5)
    bad, _ = asked(ledger)
    assert not ledger.report(bad, 1, 0.0, 1.0)
    assert not ledger.report(bad, 2, 0.0, 2.0)
    assert ledger.report(bad, 3, 0.0, 3.0)


def test_a_failed_trial_says_why_in_one_line(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    ledger.report(number, 1, 0.4, 1.0)
    ledger.fail(number, "TrialFailure: the loss is nan\n  in epoch 2")
    (trial,) = trials_of(journal)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    (row,) = ledger.rows()
    assert (row.state, row.dice) == ("FAIL", 0.4)
    assert row.reason == "TrialFailure: the loss is nan in epoch 2"


@pytest.mark.parametrize(
    ("scores", "best_epoch"),
    [
        ((0.5, 0.5, 0.5, 0.5), 1),
        ((0.1, 0.7, 0.7, 0.3), 2),
        ((0.0, 0.0, 0.0, 0.0), 1),
        ((0.1, 0.2, 0.3, 0.4), 4),
    ],
)
def test_of_equal_scores_the_earliest_epoch_is_best(
    journal: Path, scores: tuple[float, ...], best_epoch: int
) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    trained(ledger, number, *scores)
    (row,) = ledger.rows()
    assert (row.best_epoch, row.dice) == (best_epoch, max(scores))


def test_the_total_is_exact_whatever_became_of_the_trials(journal: Path) -> None:
    ledger = opened(journal, trials=3)
    first, _ = asked(ledger)
    second, _ = asked(ledger)
    third, _ = asked(ledger)
    assert (first, second, third) == (0, 1, 2)
    assert ledger.ask() is None
    assert ledger.remaining() == 3
    trained(ledger, first, 0.5, 0.5, 0.5, 0.5)
    ledger.report(second, 1, 0.1, 1.0)
    ledger.fail(third, "lost")
    assert ledger.remaining() == 0 and ledger.ask() is None
    assert [trial.state.name for trial in trials_of(journal)] == ["COMPLETE", "PRUNED", "FAIL"]
    # Two trials more than before, and no more.
    longer = opened(journal, trials=5)
    assert longer.remaining() == 2
    assert [asked(longer)[0], asked(longer)[0], longer.ask()] == [3, 4, None]


def test_orphans_come_first_under_their_own_number_and_configuration(journal: Path) -> None:
    ledger = opened(journal, trials=4)
    done, _ = asked(ledger)
    trained(ledger, done, 0.5, 0.5, 0.5, 0.5)
    orphans = [asked(ledger), asked(ledger)]
    ledger.report(orphans[0][0], 1, 0.7, 10.0)

    again = opened(journal, trials=4)
    assert again.remaining() == 3
    assert [asked(again), asked(again)] == orphans
    assert again.last_epoch(orphans[0][0]) == 1 and again.last_epoch(orphans[1][0]) == 0
    assert asked(again)[0] == 3 and again.ask() is None
    trained(again, orphans[0][0], 0.7, 0.8, 0.6, 0.6)
    trial = trials_of(journal)[orphans[0][0]]
    assert trial.value == 0.8
    assert trial.intermediate_values == {1: 0.7, 2: 0.8, 3: 0.6, 4: 0.6}
    assert trial.user_attrs["config"] == plain(orphans[0][1])


def test_epochs_that_are_known_already_are_not_taken_down_again(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    trained(ledger, number, 0.3, 0.4)
    again = opened(journal)
    assert asked(again)[0] == number
    # A trial that goes on may report what the driver took down before it died.
    assert not again.report(number, 1, 0.9, 99.0)
    assert not again.report(number, 2, 0.9, 99.0)
    (row,) = again.rows()
    assert (row.dice, row.epochs_run, row.seconds) == (0.4, 2, 20.0)


def test_a_driver_lost_between_the_last_epoch_and_the_verdict_completes_the_trial(
    journal: Path,
) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    trained(ledger, number, 0.3, 0.4, 0.5)
    # The journal has the epoch, and the process ends before the trial is told complete.
    ledger._running[number].report(0.2, EPOCHS)
    again = opened(journal)
    # There is nothing left to run of it: the next proposal is a new trial.
    assert asked(again)[0] == number + 1
    trial = trials_of(journal)[number]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)


def test_a_driver_lost_between_a_poor_epoch_and_the_verdict_prunes_the_trial(
    journal: Path,
) -> None:
    ledger = opened(journal)
    good, _ = asked(ledger)
    trained(ledger, good, 0.5, 0.5, 0.5, 0.5)
    bad, _ = asked(ledger)
    ledger._running[bad].report(0.1, 1)
    again = opened(journal)
    assert asked(again)[0] == bad + 1
    assert trials_of(journal)[bad].state is TrialState.PRUNED


def test_a_trial_that_failed_once_is_not_run_again_by_the_next_driver(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    ledger.report(number, 1, 0.4, 1.0)
    ledger.fail(number, "the loss is nan")
    again = opened(journal)
    assert again.remaining() == 2
    assert asked(again)[0] == number + 1
    assert again.rows()[number].reason == "the loss is nan"


def _score(config: TrialConfig) -> float:
    """A bowl with its best point at a learning rate of 1e-3 and a lesion share of 0.5."""
    return 1.0 - abs(config.lesion_share - 0.5) - 10 * abs(config.learning_rate - 1e-3)


@pytest.mark.parametrize("stops", [(3,), (1, 6), tuple(range(10))])
def test_proposals_after_reopening_are_those_of_an_undisturbed_study(
    tmp_path: Path, stops: tuple[int, ...]
) -> None:
    # Four of twelve trials are random; the others build on all that came before.
    histories = []
    for name, interruptions in (("whole.log", ()), ("broken.log", stops)):
        ledger = opened(tmp_path / name, trials=12, grace=EPOCHS)
        configs = []
        for index in range(12):
            number, config = asked(ledger)
            configs.append(config)
            ledger.report(number, 1, _score(config) / 2, 1.0)
            if index in interruptions:
                ledger = opened(tmp_path / name, trials=12, grace=EPOCHS)
                assert asked(ledger) == (number, config)
            trained(ledger, number, *[_score(config)] * EPOCHS)
        histories.append(configs)
    assert histories[0] == histories[1]
    assert len({config.learning_rate for config in histories[0]}) == 12


def test_another_seed_proposes_other_trials(tmp_path: Path) -> None:
    one = asked(opened(tmp_path / "one.log", seed=1))
    two = asked(opened(tmp_path / "two.log", seed=2))
    assert one[0] == two[0] and one[1] != two[1]


def test_progress_counts_ended_trials_in_full(journal: Path) -> None:
    ledger = opened(journal, trials=3)
    assert ledger.epochs_done() == 0
    first, _ = asked(ledger)
    trained(ledger, first, 0.5, 0.5, 0.5, 0.5)
    second, _ = asked(ledger)
    ledger.report(second, 1, 0.1, 1.0)
    third, _ = asked(ledger)
    ledger.report(third, 1, 0.9, 1.0)
    # 4 of the complete one, 4 of the pruned one, 1 of the one that runs.
    assert ledger.epochs_done() == 4 + 4 + 1


@pytest.mark.usefixtures("local_ray")
def test_tune_tells_the_journal_how_every_trial_ended(journal: Path, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    attempts.mkdir()

    def trial(proposal: Mapping[str, Any]) -> None:
        number, scores = proposal["number"], {0: (0.2, 0.6, 0.4, 0.3), 3: (0.1, 0.1, 0.1, 0.1)}
        attempt = len(list(attempts.glob(f"{number}-*")))
        (attempts / f"{number}-{attempt}").touch()
        if number == 1:
            tune.report({"failure": "TrialFailure: the loss is nan"})
            return
        if number == 2:
            tune.report({"epoch": 1, "dice": 0.5, "seconds": 1.0 + attempt})
            raise RuntimeError(f"no luck\nin attempt {attempt}")
        for epoch, dice in enumerate(scores[number], start=1):
            tune.report({"epoch": epoch, "dice": dice, "seconds": float(epoch)})

    ledger = opened(journal, trials=4)
    searcher = StudySearcher(ledger)
    tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(ledger, searcher),
            num_samples=ledger.remaining(),
            # One after the other, so that it is known which is measured against which.
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),
        ),
    ).fit()

    assert ledger.remaining() == 0
    complete, reported, raised, pruned = trials_of(journal)
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.6)
    assert complete.intermediate_values == {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.3}
    assert reported.state is TrialState.FAIL
    reasons = [row.reason for row in ledger.rows()]
    assert reasons[1] == "TrialFailure: the loss is nan"
    assert raised.state is TrialState.FAIL
    assert "in attempt 2" in reasons[2] and "\n" not in reasons[2]
    # The epoch was reported by each attempt and taken down once.
    assert raised.intermediate_values == {1: 0.5} and raised.user_attrs["seconds"] == 1.0
    # Of 0.2, 0.5 and 0.1 at epoch 1 the last is not in the better half.
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    # One attempt each, and three of the one that raised.
    assert sorted(path.name for path in attempts.iterdir()) == [
        *("0-0", "1-0", "2-0", "2-1", "2-2", "3-0"),
    ]
