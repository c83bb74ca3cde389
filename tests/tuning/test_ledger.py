"""The ledger: every ending recorded as it was, nothing lost by an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from strokeseg.records.config import SearchConfig, TrialConfig
from strokeseg.records.leaderboard import ranked
from strokeseg.tuning.entries import Proposal
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.scoring import FoldScoring, KFoldScoring, Scoring
from strokeseg.tuning.space import Dimension, Space, enqueue_first, plain

EPOCHS = 4
SPACE = Space(
    dimensions={
        "learning_rate": Dimension(low=1e-4, high=1e-2, log=True),
        "lesion_fraction": Dimension(low=0.0, high=1.0),
        "batch_size": Dimension(choices=(8, 16)),
    },
    first=(),
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def opened(
    journal: Path,
    trials: int = 3,
    seed: int = 0,
    grace: int = 1,
    space: Space = SPACE,
    scoring: Scoring | None = None,
    **budget: Any,
) -> Ledger:
    """Open a ledger as a new process would, on the journal's file."""
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="axial",
        direction="maximize",
        load_if_exists=True,
    )
    if not study.trials:
        enqueue_first(study, space)
    # Of two at a rung one goes on; a factor of 8 of 4 epochs makes one bracket only.
    scored = FoldScoring(epochs=EPOCHS, grace_epochs=grace, reduction_factor=8)
    clock = budget.pop("clock", time.monotonic)
    settings = {"trials": trials, "seed": seed, "confirm_trials": 0, **budget}
    config = SearchConfig.model_validate(settings)
    return Ledger(study, space, scoring or scored, config, clock=clock)


def trials_of(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """Read the journal with plain Optuna."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="axial", storage=storage).trials


def asked(ledger: Ledger) -> tuple[int, TrialConfig]:
    proposal = ledger.ask()
    assert proposal is not None
    return proposal.number, proposal.config


def reported(ledger: Ledger, number: int, epoch: int, dice: float, seconds: float = 1.0) -> bool:
    spent = {"seconds": seconds, "device_hours": seconds / 3600, "spread": dice / 10}
    return ledger.report(number, {"epoch": epoch, "dice": dice, **spent})


def trained(ledger: Ledger, number: int, *scores: float) -> bool:
    """Report scores from the first epoch on, 10 seconds each, until it is stopped."""
    return any(
        reported(ledger, number, epoch, score, 10.0 * epoch)
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
    assert reported(ledger, bad, 1, 0.1, 5.0)
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
    assert not reported(ledger, bad, 1, 0.0, 1.0)
    assert not reported(ledger, bad, 2, 0.0, 2.0)
    assert reported(ledger, bad, 3, 0.0, 3.0)


def test_a_failed_trial_says_why_in_one_line(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    reported(ledger, number, 1, 0.4, 1.0)
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
    reported(ledger, second, 1, 0.1, 1.0)
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
    reported(ledger, orphans[0][0], 1, 0.7, 10.0)

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


def test_epochs_that_are_recorded_already_are_not_recorded_again(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    trained(ledger, number, 0.3, 0.4)
    again = opened(journal)
    assert asked(again)[0] == number
    # A trial that goes on may report what the driver recorded before it died.
    assert not reported(again, number, 1, 0.9, 99.0)
    assert not reported(again, number, 2, 0.9, 99.0)
    (row,) = again.rows()
    assert (row.dice, row.epochs_run, row.seconds) == (0.4, 2, 20.0)


def test_a_driver_lost_between_the_last_epoch_and_the_verdict_completes_the_trial(
    journal: Path,
) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    trained(ledger, number, 0.3, 0.4, 0.5)
    # The journal has the epoch, and the process ends before the trial is recorded complete.
    ledger._entries.running[number].report(0.2, EPOCHS)
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
    ledger._entries.running[bad].report(0.1, 1)
    again = opened(journal)
    assert asked(again)[0] == bad + 1
    assert trials_of(journal)[bad].state is TrialState.PRUNED


def test_a_trial_that_failed_once_is_not_run_again_by_the_next_driver(journal: Path) -> None:
    ledger = opened(journal)
    number, _ = asked(ledger)
    reported(ledger, number, 1, 0.4, 1.0)
    ledger.fail(number, "the loss is nan")
    again = opened(journal)
    assert again.remaining() == 2
    assert asked(again)[0] == number + 1
    assert again.rows()[number].reason == "the loss is nan"


def _score(config: TrialConfig) -> float:
    """A bowl with its best point at a learning rate of 1e-3 and a lesion fraction of 0.5."""
    return 1.0 - abs(config.lesion_fraction - 0.5) - 10 * abs(config.learning_rate - 1e-3)


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
            reported(ledger, number, 1, _score(config) / 2, 1.0)
            if index in interruptions:
                ledger = opened(tmp_path / name, trials=12, grace=EPOCHS)
                assert asked(ledger) == (number, config)
            trained(ledger, number, *[_score(config)] * EPOCHS)
        histories.append(configs)
    assert histories[0] == histories[1]
    assert len({config.learning_rate for config in histories[0]}) == 12


def test_another_seed_proposes_other_trials_after_the_same_default(tmp_path: Path) -> None:
    proposals = []
    for seed in (1, 2):
        ledger = opened(tmp_path / f"{seed}.log", seed=seed)
        proposals.append([asked(ledger), asked(ledger)])
    (default_1, one), (default_2, two) = proposals
    assert default_1 == default_2 == (0, TrialConfig())
    assert one[0] == two[0] == 1 and one[1] != two[1]


def test_progress_counts_ended_trials_in_full(journal: Path) -> None:
    ledger = opened(journal, trials=3)
    assert ledger.epochs_done() == 0
    first, _ = asked(ledger)
    trained(ledger, first, 0.5, 0.5, 0.5, 0.5)
    second, _ = asked(ledger)
    reported(ledger, second, 1, 0.1, 1.0)
    third, _ = asked(ledger)
    reported(ledger, third, 1, 0.9, 1.0)
    # 4 of the complete one, 4 of the pruned one, 1 of the one that runs.
    assert ledger.epochs_done() == 4 + 4 + 1


def test_the_default_competes_but_is_never_stopped(journal: Path) -> None:
    ledger = opened(journal, trials=3)
    default, _ = asked(ledger)
    assert ledger.rows()[0].origin == "default"
    reported(ledger, default, 1, 0.2)
    better, _ = asked(ledger)
    assert not reported(ledger, better, 1, 0.9)
    # Of two at the rung the default is the worse one, and would have been stopped.
    assert not reported(ledger, default, 2, 0.2)
    worse, _ = asked(ledger)
    assert reported(ledger, worse, 1, 0.1)
    assert trained(ledger, default, 0.2, 0.2, 0.2, 0.2)
    assert [row.state for row in ledger.rows()] == ["COMPLETE", "RUNNING", "PRUNED"]


def test_a_trial_is_scored_by_its_best_epoch_so_far(journal: Path) -> None:
    ledger = opened(journal, trials=3, grace=2)
    trained(ledger, asked(ledger)[0], 0.5, 0.5, 0.5, 0.5)
    # The rung is epoch 2, at which it happens to score below 0.5.
    late, _ = asked(ledger)
    assert not reported(ledger, late, 1, 0.6) and not reported(ledger, late, 2, 0.4)
    poor, _ = asked(ledger)
    assert not reported(ledger, poor, 1, 0.3) and reported(ledger, poor, 2, 0.4)


def test_a_later_bracket_has_its_first_rung_later(journal: Path) -> None:
    # 9 epochs from 1 by 3: rungs at 1, 3, 9; at 3, 9; and at 9 alone. Trials are dealt out to
    # the brackets by their numbers, so of many poor ones some are stopped at 1 and some at 3.
    scoring = FoldScoring(epochs=9, grace_epochs=1, reduction_factor=3)
    ledger = opened(journal, trials=40, scoring=scoring)
    for _ in range(40):
        number, _ = asked(ledger)
        score = 0.9 if number < 12 else 0.1
        next((e for e in range(1, 10) if reported(ledger, number, e, score)), None)
    poor = {row.epochs_run for row in ledger.rows() if row.trial >= 12}
    assert poor == {1, 3, 9}


def test_stops_after_reopening_are_those_of_an_undisturbed_study(tmp_path: Path) -> None:
    # 9 epochs from 1 by 3, 30 trials of scores that rise and fall at random, four side by side.
    histories = []
    for name, interruptions in (("whole.log", ()), ("broken.log", (10, 35, 70))):
        generator = np.random.default_rng(0)
        path, running = tmp_path / name, dict[int, int]()
        for event in range(400):
            if event == 0 or event in interruptions:
                scoring = FoldScoring(epochs=9, grace_epochs=1, reduction_factor=3)
                ledger = opened(path, trials=30, scoring=scoring)
                assert [asked(ledger)[0] for _ in running] == sorted(running)
            while len(running) < 4 and (proposal := ledger.ask()) is not None:
                running[proposal.number] = 0
            if running:
                number = int(generator.choice(sorted(running)))
                running[number] += 1
                if reported(ledger, number, running[number], float(generator.random())):
                    del running[number]
        histories.append([(row.state, row.epochs_run) for row in ledger.rows()])
    assert histories[0] == histories[1]
    assert {state for state, _ in histories[0]} == {"COMPLETE", "PRUNED"}
    assert {epochs for state, epochs in histories[0] if state == "PRUNED"} == {1, 3}


def test_of_equal_scores_the_earliest_trial_is_best_and_confirmed(journal: Path) -> None:
    plan: dict[str, Any] = {"confirm_trials": 1, "confirm_seeds": 1, "grace": EPOCHS}
    ledger = opened(journal, trials=4, **plan)
    numbers = [asked(ledger)[0] for _ in range(4)]
    for number, score in zip(reversed(numbers), (0.5, 0.6, 0.6, 0.1), strict=True):
        trained(ledger, number, *[score] * EPOCHS)
    best = ledger.best()
    assert best is not None and best.trial == 1
    assert ledger.row(asked(ledger)[0]).confirms == 1


def test_what_failed_may_be_proposed_again(journal: Path) -> None:
    space = Space(dimensions={"batch_size": Dimension(choices=(8, 16))}, first=())
    ledger = opened(journal, trials=3, space=space)
    assert asked(ledger)[1] == TrialConfig()
    failed, config = asked(ledger)
    assert config != TrialConfig()
    ledger.fail(failed, "lost")
    assert asked(ledger)[1] == config


@pytest.mark.parametrize("weights_are_there", [True, False])
def test_inherited_trials_do_not_count_and_those_without_weights_are_not_listed(
    journal: Path, weights_are_there: bool
) -> None:
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="axial",
        direction="maximize",
    )
    space = Space(dimensions={"batch_size": Dimension(choices=(8, 16))}, first=())
    enqueue_first(study, space)
    default = TrialConfig()
    (other,) = {8, 16} - {default.batch_size}
    config = default.model_copy(update={"batch_size": other})
    parameters = {"batch_size": other}
    study.add_trial(
        optuna.create_trial(
            value=0.9,
            params=parameters,
            distributions=space.distributions_of(parameters),
            intermediate_values=dict.fromkeys(range(1, EPOCHS + 1), 0.9),
            user_attrs={"inherited": weights_are_there, "config": plain(config)},
        )
    )
    ledger = opened(journal, trials=2, space=space, target_dice=0.95)
    assert (ledger.remaining(), ledger.epochs_done()) == (2, 0)
    first = asked(ledger)[0]
    trained(ledger, first, *[0.5] * EPOCHS)
    assert (ledger.remaining(), ledger.epochs_done()) == (1, EPOCHS)
    best = ledger.best()
    assert best is not None and best.dice == (0.9 if weights_are_there else 0.5)
    assert [row.trial for row in ledger.rows()] == ([0, 1] if weights_are_there else [0])
    # To run it again is worth something only where its weights are gone.
    if not weights_are_there:
        assert asked(ledger)[1] == config


def confirmed(ledger: Ledger, scores: dict[int, list[float]]) -> None:
    """Run the confirmations that a ledger asks for with given scores."""
    while (proposal := ledger.ask()) is not None:
        (row,) = (row for row in ledger.rows() if row.trial == proposal.number)
        assert row.confirms is not None
        assert trained(ledger, proposal.number, *[scores[row.confirms].pop(0)] * EPOCHS)


def test_the_best_trials_run_again_and_luck_falls_behind(journal: Path) -> None:
    plan: dict[str, Any] = {"trials": 3, "confirm_trials": 2, "confirm_seeds": 2, "grace": EPOCHS}
    ledger = opened(journal, **plan)
    configs = []
    for score in (0.7, 0.8, 0.5):
        number, config = asked(ledger)
        configs.append(plain(config))
        assert not ledger.is_done()
        trained(ledger, number, *[score] * EPOCHS)
    assert (ledger.remaining(), ledger.to_confirm()) == (0, 4)
    # The second scored best once and never again.
    confirmed(ledger, {0: [0.66, 0.64], 1: [0.5, 0.6]})
    assert ledger.is_done() and ledger.ask() is None
    rows = {row.trial: row for row in ledger.rows()}
    assert len(rows) == 7
    assert (rows[0].runs, rows[1].runs, rows[2].runs) == (2, 2, 0)
    assert rows[0].mean_dice == pytest.approx(0.65)
    assert rows[1].mean_dice == pytest.approx(0.55)
    # The standard deviation of 0.5 and 0.6 from a sample: 0.1 / sqrt(2).
    assert rows[1].seed_spread == pytest.approx(0.0707107)
    assert [row.trial for row in ranked(rows.values())][:2] == [0, 1]
    for row in rows.values():
        if row.confirms is not None:
            assert row.parameters == configs[row.confirms]
            assert row.origin == f"confirms trial {row.confirms}"
    assert opened(journal, **plan).is_done()


def test_confirmations_wait_for_the_last_trial_and_survive_an_interruption(journal: Path) -> None:
    plan: dict[str, Any] = {"trials": 2, "confirm_trials": 1, "confirm_seeds": 2, "grace": EPOCHS}
    ledger = opened(journal, **plan)
    first, second = asked(ledger)[0], asked(ledger)[0]
    trained(ledger, first, *[0.5] * EPOCHS)
    # What is confirmed depends on the trial that still runs.
    assert ledger.ask() is None and ledger.may_ask_again()
    trained(ledger, second, *[0.6] * EPOCHS)
    interrupted, _ = asked(ledger)
    reported(ledger, interrupted, 1, 0.4)

    again = opened(journal, **plan)
    assert (again.remaining(), again.to_confirm()) == (0, 2)
    assert asked(again)[0] == interrupted and again.last_epoch(interrupted) == 1
    other, _ = asked(again)
    assert again.ask() is None
    for number in (interrupted, other):
        trained(again, number, *[0.4] * EPOCHS)
    assert again.is_done()
    assert [row.confirms for row in again.rows()] == [None, None, second, second]
    # A failed confirmation is not tried for ever: it counts, the mean is of the others.
    assert again.rows()[second].runs == 2


def test_more_trials_are_confirmed_after_an_extension(journal: Path) -> None:
    plan: dict[str, Any] = {"confirm_trials": 1, "confirm_seeds": 1, "grace": EPOCHS}
    ledger = opened(journal, trials=1, **plan)
    trained(ledger, asked(ledger)[0], *[0.5] * EPOCHS)
    trained(ledger, asked(ledger)[0], *[0.45] * EPOCHS)
    assert ledger.is_done()
    longer = opened(journal, trials=2, **plan)
    assert longer.remaining() == 1
    number, _ = asked(longer)
    assert number == 2
    trained(longer, number, *[0.9] * EPOCHS)
    proposal = longer.ask()
    assert proposal is not None and longer.rows()[-1].confirms == 2


def test_the_target_ends_the_search_with_the_trial_that_reached_it(journal: Path) -> None:
    ledger = opened(journal, trials=5, target_dice=0.7)
    first, second = asked(ledger)[0], asked(ledger)[0]
    assert not reported(ledger, second, 1, 0.3)
    assert not reported(ledger, first, 1, 0.6)
    assert reported(ledger, first, 2, 0.75)
    assert ledger.rows()[first].state == "COMPLETE"
    assert ledger.rows()[first].reason == "reached the target after 2 epochs"
    # Who still runs is left to go on another time, and nothing new begins.
    assert reported(ledger, second, 2, 0.3)
    assert ledger.rows()[second].state == "RUNNING"
    assert ledger.ask() is None and ledger.is_done()
    assert "trial 0 reached Dice 0.750" in str(ledger.reached_target())
    again = opened(journal, trials=5, target_dice=0.7)
    assert again.is_done() and again.ask() is None
    # Without the target it goes on.
    assert asked(opened(journal, trials=5))[0] == second


def test_hours_are_counted_over_all_sessions(journal: Path) -> None:
    hours = 0.0
    budget: dict[str, Any] = {"max_hours": 2.0, "clock": lambda: hours * 3600}
    ledger = opened(journal, trials=9, **budget)
    number, _ = asked(ledger)
    hours = 1.5
    assert not reported(ledger, number, 1, 0.5)
    ledger.close()
    # The hour between the sessions does not count.
    hours = 2.5
    again = opened(journal, trials=9, **budget)
    assert asked(again)[0] == number and not again.is_done()
    hours = 3.0
    assert reported(again, number, 2, 0.5)
    assert again.out_of_time() == "the 2 hours of the search are over"
    assert again.rows()[number].state == "RUNNING"
    assert again.is_done() and again.ask() is None
    again.close()
    assert opened(journal, trials=9, **budget).is_done()
    # With more hours it goes on where it was.
    assert asked(opened(journal, trials=9, **{**budget, "max_hours": 3.0}))[0] == number


def test_a_search_in_which_every_trial_fails_alike_is_hopeless(journal: Path) -> None:
    ledger = opened(journal, trials=9)
    for attempt in range(3):
        assert ledger.hopeless() is None
        number, _ = asked(ledger)
        # Only the numbers in the reason differ.
        ledger.fail(number, f"OutOfMemoryError: tried to allocate {attempt + 2} GB")
    assert ledger.hopeless() == "OutOfMemoryError: tried to allocate 2 GB"
    assert ledger.ask() is None and not ledger.may_ask_again()
    # Mended, the next session has its own chance.
    again = opened(journal, trials=9)
    assert again.hopeless() is None and asked(again)[0] == 3


@pytest.mark.parametrize(
    "reasons", [("a", "b", "a", "a"), ("a", "a", None, "a", "a")], ids=["reasons", "a success"]
)
def test_a_search_goes_on_while_not_all_fails_alike(
    journal: Path, reasons: tuple[str | None, ...]
) -> None:
    ledger = opened(journal, trials=9, grace=EPOCHS)
    for reason in reasons:
        number, _ = asked(ledger)
        if reason is None:
            trained(ledger, number, *[0.1] * EPOCHS)
        else:
            ledger.fail(number, reason)
    assert ledger.hopeless() is None
    assert ledger.ask() is not None


FEW = Space(
    dimensions={
        "batch_size": Dimension(choices=(8, 16)),
        "encoder_depth": Dimension(low=3, high=5),
    },
    first=(),
)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_trials_side_by_side_do_not_repeat_each_other(journal: Path, sampler: str) -> None:
    # A space of 2 x 3 points: all six are proposed before any is proposed again.
    ledger = opened(journal, trials=7, space=FEW, sampler=sampler)
    proposals = [asked(ledger) for _ in range(6)]
    assert len({(config.batch_size, config.encoder_depth) for _, config in proposals}) == 6
    assert ledger.remaining() == 7
    # Then there is nothing new, and a repeat with another seed is better than none.
    assert asked(ledger)[1] in {config for _, config in proposals}
    assert len(ledger.rows()) == 7


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
def test_every_sampler_proposes_points_of_the_space_and_goes_on_alike(
    tmp_path: Path, sampler: str
) -> None:
    histories = []
    for name, stops in (("whole", ()), ("broken", (4, 9))):
        path = tmp_path / f"{name}.log"
        ledger = opened(path, trials=12, grace=EPOCHS, sampler=sampler)
        configs = []
        for index in range(12):
            number, config = asked(ledger)
            configs.append(config)
            if index in stops:
                ledger = opened(path, trials=12, grace=EPOCHS, sampler=sampler)
                assert asked(ledger) == (number, config)
            trained(ledger, number, *[_score(config)] * EPOCHS)
        histories.append(configs)
    assert histories[0] == histories[1]
    assert all(1e-4 <= config.learning_rate <= 1e-2 for config in histories[0])
    assert len({config.lesion_fraction for config in histories[0]}) == 12


def k_fold(ledger: Ledger, number: int, scores: dict[str, float]) -> int:
    """Run a trial of three folds of two epochs until it is stopped; return its epochs."""
    cases = [("a", "b"), ("c", "d"), ("e", "f")]
    for epoch in range(1, 7):
        ends = epoch % 2 == 0
        case_dice = [(case, scores[case]) for case in cases[epoch // 2 - 1]] if ends else []
        result = {"epoch": epoch, "dice": 0.0, "seconds": float(epoch), "device_hours": 0.0}
        if ledger.report(number, {**result, **({"case_dice": case_dice} if ends else {})}):
            return epoch
    raise AssertionError("a trial has no more epochs than these")


def test_k_fold_scores_all_patients_and_stops_a_trial_between_folds(journal: Path) -> None:
    def scoring() -> KFoldScoring:
        return KFoldScoring(epochs_per_fold=2, folds=[("a", "b"), ("c", "d"), ("e", "f")])

    good = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.1}
    ledger = opened(journal, trials=4, scoring=scoring())
    assert k_fold(ledger, asked(ledger)[0], good) == 6
    # Worse for each patient. Two pairs: p = 1/4, not below 0.1; four pairs: p = 1/16.
    assert k_fold(ledger, asked(ledger)[0], {case: dice / 2 for case, dice in good.items()}) == 4
    # Better for half of the patients.
    mixed = {**good, "a": 1.0, "c": 0.8, "f": 0.2}
    assert k_fold(ledger, asked(ledger)[0], {**mixed, "b": 0.7, "d": 0.5, "e": 0.45}) == 6
    complete, beaten, other = ledger.rows()
    assert (complete.state, complete.dice, complete.best_epoch) == (
        "COMPLETE",
        pytest.approx(0.6),
        None,
    )
    # The deviations from 0.6 are 0.3, 0.2, 0.1, 0, -0.1 and -0.5: variance 0.4 / 6.
    assert complete.spread == pytest.approx((0.4 / 6) ** 0.5)
    assert (beaten.state, beaten.epochs_run, other.state) == ("PRUNED", 4, "COMPLETE")
    assert len(trials_of(journal)[1].intermediate_values) == 4
    # What is known of an orphan is read back from the journal.
    interrupted, _ = asked(ledger)
    ledger.report(interrupted, {"epoch": 1, "dice": 0.1, "seconds": 3.0, "device_hours": 0.0})
    again = opened(journal, trials=4, scoring=scoring())
    assert again.ask() == Proposal(
        number=interrupted, config=ledger_config(again, interrupted), reported_epoch=1
    )


def ledger_config(ledger: Ledger, number: int) -> TrialConfig:
    return ledger.rows()[number].config


def test_a_trial_that_still_runs_well_keeps_a_search_from_being_given_up(journal: Path) -> None:
    ledger = opened(journal, trials=8, grace=EPOCHS)
    good, silent = asked(ledger)[0], asked(ledger)[0]
    for _ in range(3):
        ledger.fail(asked(ledger)[0], "out of memory")
    # Nobody has shown yet that it can be done otherwise, but two may: wait for them.
    assert ledger.hopeless() == "out of memory"
    assert ledger.ask() is None and ledger.may_ask_again()
    reported(ledger, good, 1, 0.5)
    assert ledger.hopeless() is None
    assert ledger.ask() is not None
    ledger.fail(silent, "out of memory")
    assert ledger.hopeless() is None


def test_what_went_well_in_another_session_does_not_hide_that_all_fails_in_this(
    journal: Path,
) -> None:
    ledger = opened(journal, trials=9, grace=EPOCHS)
    trained(ledger, asked(ledger)[0], *[0.5] * EPOCHS)
    again = opened(journal, trials=9, grace=EPOCHS)
    for _ in range(3):
        again.fail(asked(again)[0], "no kernel image")
    assert again.hopeless() == "no kernel image"


def test_a_lower_total_leaves_orphans_alone_and_confirms(journal: Path) -> None:
    plan: dict[str, Any] = {"confirm_trials": 1, "confirm_seeds": 1, "grace": EPOCHS}
    ledger = opened(journal, trials=6, **plan)
    numbers = [asked(ledger)[0] for _ in range(4)]
    for number in numbers[:2]:
        trained(ledger, number, *[0.5 + number / 10] * EPOCHS)
    fewer = opened(journal, trials=2, **plan)
    number, _ = asked(fewer)
    assert fewer.row(number).confirms == 1
    trained(fewer, number, *[0.5] * EPOCHS)
    assert fewer.is_done() and fewer.ask() is None
    # One more has room for one of them.
    assert asked(opened(journal, trials=3, **plan))[0] == numbers[2]


def test_a_repeat_whose_end_was_lost_harms_nobody(journal: Path) -> None:
    budget: dict[str, Any] = {"target_dice": 0.4, "confirm_trials": 1, "confirm_seeds": 1}
    ledger = opened(journal, trials=3, grace=EPOCHS, **budget)
    first, repeat = asked(ledger)[0], asked(ledger)[0]
    # Killed between the note that it repeats another trial and the end of it.
    ledger._entries.running[repeat].set_user_attr("repeats", first)
    reported(ledger, first, 1, 0.5)
    again = opened(journal, trials=3, grace=EPOCHS, **budget)
    proposal = again.ask()
    assert proposal is not None and again.row(proposal.number).confirms == first
    assert trials_of(journal)[repeat].state is TrialState.FAIL
