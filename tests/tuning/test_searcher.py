"""Tune's questions answered from the ledger: a real Tune run with every ending."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune

from strokeseg.records.config import SearchConfig
from strokeseg.tuning.journal import open_journal
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.scoring import FoldScoring
from strokeseg.tuning.searcher import StudyScheduler, StudySearcher
from strokeseg.tuning.space import Dimension, Space, enqueue_first

EPOCHS = 4
SPACE = Space(
    dimensions={"learning_rate": Dimension(low=1e-4, high=1e-2, log=True)},
    first=(),
)


def opened(journal: Path, trials: int, **budget: Any) -> Ledger:
    study = optuna.create_study(
        storage=open_journal(journal), study_name="axial", direction="maximize"
    )
    enqueue_first(study, SPACE)
    # One bracket, and of two at a rung one goes on.
    scoring = FoldScoring(epochs=EPOCHS, grace_epochs=1, reduction_factor=8)
    config = SearchConfig.model_validate({"trials": trials, "confirm_trials": 0, **budget})
    return Ledger(study, SPACE, scoring, config)


def run_under_tune(
    trial: Any, searched: Ledger | dict[str, Ledger], folder: Path, at_once: int = 1
) -> None:
    ledgers = {"axial": searched} if isinstance(searched, Ledger) else searched
    searcher = StudySearcher(ledgers)
    tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(ledgers, searcher),
            num_samples=sum(one.remaining() + one.to_confirm() for one in ledgers.values()),
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),
        ),
    ).fit()


def reporter() -> Any:
    """Return what reports an epoch; nested, since workers cannot import this file."""

    def report(epoch: int, dice: float, seconds: float = 1.0) -> None:
        spent = {"seconds": seconds, "device_hours": seconds / 3600, "spread": 0.1}
        tune.report({"epoch": epoch, "dice": dice, **spent})

    return report


def trials_of(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """Read the journal with plain Optuna."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="axial", storage=storage).trials


@pytest.mark.usefixtures("local_ray")
def test_tune_tells_the_journal_how_every_trial_ended(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    report = reporter()

    def trial(proposal: Mapping[str, Any]) -> None:
        number = proposal["number"]
        scores = {0: (0.2, 0.6, 0.4, 0.3), 3: (0.1, 0.1, 0.1, 0.1)}
        attempt = len(list(attempts.glob(f"{number}-*")))
        (attempts / f"{number}-{attempt}").touch()
        if number == 1:
            tune.report({"failure": "the loss is nan\nin epoch 1"})
            return
        if number == 2:
            report(1, 0.5, 1.0 + attempt)
            os._exit(1)
        for epoch, dice in enumerate(scores[number], start=1):
            report(epoch, dice, float(epoch))

    journal = tmp_path / "journal.log"
    ledger = opened(journal, trials=4)
    # One after the other, so that it is known which is measured against which.
    run_under_tune(trial, ledger, tmp_path)

    assert ledger.remaining() == 0
    complete, failed, lost, pruned = trials_of(journal)
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.6)
    assert complete.intermediate_values == {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.3}
    assert failed.state is TrialState.FAIL
    reasons = [row.reason for row in ledger.rows()]
    assert reasons[1] == "the loss is nan in epoch 1"
    assert lost.state is TrialState.FAIL
    assert "died" in reasons[2] and "\n" not in reasons[2]
    # The epoch was reported by each attempt and recorded once.
    assert lost.intermediate_values == {1: 0.5} and lost.user_attrs["progress"]["seconds"] == 1.0
    # Of 0.2, 0.5 and 0.1 at epoch 1 the last is not in the better half.
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    # The lost one was tried again twice, and reported nothing new; a failure is not tried again.
    tries = sorted(path.name for path in attempts.iterdir())
    assert [name for name in tries if not name.startswith("2-")] == ["0-0", "1-0", "3-0"]
    assert [name for name in tries if name.startswith("2-")] == ["2-0", "2-1", "2-2"]


@pytest.mark.usefixtures("local_ray")
def test_a_trial_that_tune_cannot_begin_on_a_full_disk_is_not_at_fault(tmp_path: Path) -> None:
    report = reporter()

    def trial(proposal: Mapping[str, Any]) -> None:
        if proposal["number"] == 1:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/storage/trials/0001")
        for epoch in range(1, EPOCHS + 1):
            report(epoch, 0.5)

    journal = tmp_path / "journal.log"
    ledger = opened(journal, trials=3)
    run_under_tune(trial, ledger, tmp_path)
    assert ledger.halted == "/storage/trials/0001: cannot be written (Read-only file system)"
    # It goes on with the search, and the third has not begun.
    assert [row.state for row in ledger.rows()] == ["COMPLETE", "RUNNING"]
    assert ledger.remaining() == 2


@pytest.mark.usefixtures("local_ray")
def test_a_process_that_is_lost_once_an_epoch_is_tried_again_to_the_end(tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    report = reporter()

    def trial(proposal: Mapping[str, Any]) -> None:
        # As a trial goes on from its state on disk, this one counts its epochs in files.
        for epoch in range(1, EPOCHS + 1):
            new = not (done / str(epoch)).exists()
            (done / str(epoch)).touch()
            report(epoch, 0.5)
            if new and epoch < EPOCHS:
                os._exit(1)

    journal = tmp_path / "journal.log"
    ledger = opened(journal, trials=1)
    run_under_tune(trial, ledger, tmp_path)
    (row,) = ledger.rows()
    # Three processes were lost, more than the retries of one epoch.
    assert (row.state, row.epochs_run, row.reason) == ("COMPLETE", EPOCHS, "")


@pytest.mark.usefixtures("local_ray")
def test_tune_waits_for_what_is_confirmed_last(tmp_path: Path) -> None:
    report = reporter()

    def trial(proposal: Mapping[str, Any]) -> None:
        for epoch in range(1, EPOCHS + 1):
            report(epoch, proposal["config"]["learning_rate"])

    ledger = opened(tmp_path / "journal.log", trials=3, confirm_trials=1, confirm_seeds=2)
    run_under_tune(trial, ledger, tmp_path, at_once=2)
    assert ledger.is_done()
    *searched, first, second = ledger.rows()
    best = max(searched, key=lambda row: row.dice if row.state == "COMPLETE" else 0.0)
    assert len(searched) == 3
    assert first.confirms == second.confirms == best.trial
    assert ledger.rows()[best.trial].runs == 2


@pytest.mark.usefixtures("local_ray")
def test_a_hopeless_search_stops_early(tmp_path: Path) -> None:
    def trial(proposal: Mapping[str, Any]) -> None:
        tune.report({"failure": f"trial {proposal['number']}: no space left on device"})

    ledger = opened(tmp_path / "journal.log", trials=50)
    run_under_tune(trial, ledger, tmp_path, at_once=2)
    assert ledger.hopeless() == "trial 0: no space left on device"
    # Those that ran side by side when the third failed may have failed as well.
    assert 3 <= len(ledger.rows()) <= 5


def test_the_axis_with_the_most_left_to_start_comes_next(tmp_path: Path) -> None:
    trials = {"axial": 3, "coronal": 1, "sagittal": 2}
    ledgers = {axis: opened(tmp_path / axis, trials=count) for axis, count in trials.items()}
    searcher = StudySearcher(ledgers)
    asked = [searcher.suggest(f"tune-{index}") for index in range(6)]
    # Axial has 3 left, then 2 like sagittal, whose turn is longer ago; all have 1 when it had two.
    order = ["axial", "sagittal", "axial", "coronal", "sagittal", "axial"]
    assert [proposal["axis"] for proposal in asked if isinstance(proposal, dict)] == order
    # Nothing for now, since what runs may fail or need confirming.
    assert searcher.suggest("tune-6") is None


@pytest.mark.usefixtures("local_ray")
def test_studies_side_by_side_keep_their_own_trials_and_processes_are_shared(
    tmp_path: Path,
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    report = reporter()

    def trial(proposal: Mapping[str, Any]) -> None:
        axis, number = proposal["axis"], proposal["number"]
        (seen / f"{axis}-{number}-{os.getpid()}").touch()
        if (axis, number) == ("coronal", 1):
            tune.report({"failure": "a broken batch"})
            return
        for epoch in range(1, EPOCHS + 1):
            report(epoch, 0.5 if axis == "axial" else 0.6)

    counts = {"axial": 3, "coronal": 2}
    journals = {axis: tmp_path / f"{axis}.log" for axis in counts}
    ledgers = {axis: opened(journals[axis], trials=count) for axis, count in counts.items()}
    run_under_tune(trial, ledgers, tmp_path, at_once=2)
    assert all(ledger.is_done() for ledger in ledgers.values())
    states = {axis: [row.state for row in ledger.rows()] for axis, ledger in ledgers.items()}
    assert states == {"axial": ["COMPLETE"] * 3, "coronal": ["COMPLETE", "FAIL"]}
    scores = {axis: trials_of(journal)[0].value for axis, journal in journals.items()}
    assert scores == {"axial": 0.5, "coronal": 0.6}
    trials = [path.name.rsplit("-", 1) for path in seen.iterdir()]
    # The second process may be late, but no axis has processes of its own.
    assert len(trials) == 5 and len({process for _, process in trials}) <= 2


@pytest.mark.usefixtures("local_ray")
def test_a_full_disk_halts_all_axes(tmp_path: Path) -> None:
    def trial(proposal: Mapping[str, Any]) -> None:
        tune.report({"halt": "/storage: cannot be written (No space left on device)"})

    ledgers = {axis: opened(tmp_path / axis, trials=2) for axis in ("axial", "coronal")}
    run_under_tune(trial, ledgers, tmp_path)
    assert {ledger.halted for ledger in ledgers.values()} == {
        "/storage: cannot be written (No space left on device)"
    }
    assert all(ledger.remaining() == 2 for ledger in ledgers.values())
