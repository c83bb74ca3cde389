"""What TensorBoard is shown, read back from the event files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ray.tune.experiment import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from strokeseg.records.config import SearchConfig
from strokeseg.records.experiment import trial_events
from strokeseg.tuning.hparams import BEST_DICE, CONFIGURATION, END, EPOCHS_RUN, START
from strokeseg.tuning.journal import open_journal
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.monitor import SearchMonitor, StudyMonitor
from strokeseg.tuning.picture_events import replace_pictures
from strokeseg.tuning.scoring import FoldScoring
from strokeseg.tuning.searcher import StudyScheduler, StudySearcher
from strokeseg.tuning.space import Dimension, Space

EPOCHS = 3
SPACE = Space(
    dimensions={
        "encoder": Dimension(choices=("resnet18", "resnet34")),
        "encoder_depth": Dimension(value=3),
        "pretrained": Dimension(choices=(True, False), when={"encoder": ("resnet34",)}),
        "learning_rate": Dimension(low=1e-4, high=1e-2, log=True),
        "batch_size": Dimension(choices=(16, 8)),
        # Where nothing is pretrained it is 0, as TrialConfig says.
        "focal_weight": Dimension(low=0.5, high=1.0, when={"pretrained": (True,)}),
        "augmentation": Dimension(low=0.3, high=0.3),
    },
    first=(),
)


class Driver:
    """A process that drives a study, up to what Tune would ask of it."""

    def __init__(self, folder: Path, trials: int = 3) -> None:
        study = optuna.create_study(
            storage=open_journal(folder / "journal.log"),
            study_name="axial",
            direction="maximize",
            load_if_exists=True,
        )
        # Of two at a rung one goes on; a factor of 8 makes one bracket only.
        scoring = FoldScoring(epochs=EPOCHS, grace_epochs=1, reduction_factor=8)
        budget = SearchConfig(trials=trials, confirm_trials=0)
        self.ledger = Ledger(study, SPACE, scoring, budget)
        ledgers = {"axial": self.ledger}
        self.searcher = StudySearcher(ledgers)
        self.scheduler = StudyScheduler(ledgers, self.searcher)
        monitor = StudyMonitor(
            ledger=self.ledger,
            space=SPACE,
            leaderboard_csv=folder / "leaderboard.csv",
            tensorboard_folder=folder / "tensorboard",
            trials_folder=folder / "trials",
            kept=lambda rows: set(),
        )
        self.notes: list[str] = []
        self.monitor = SearchMonitor(
            *({"axial": monitor}, ledgers, self.searcher),
            lambda done, total, note: self.notes.append(note),
        )
        self.monitor.setup()

    def start(self) -> Trial:
        trial = Trial("toy", stub=True)
        assert isinstance(self.searcher.suggest(trial.trial_id), dict)
        self.monitor.on_trial_start(0, [], trial)
        return trial

    def report(self, trial: Trial, epoch: int, dice: float, *, shown: bool = True) -> None:
        result = {
            "epoch": epoch,
            "dice": dice,
            "learning_rate": 0.001 * epoch,
            "losses": {"total": 1 / epoch, "dice": 2 / epoch},
            "seconds": 10.0 * epoch,
            "slices_per_second": 50.0,
            "wait_share": 0.25,
            "memory_gb": 1.5,
            "spread": 0.1,
            "device_hours": 0.01 * epoch,
        }
        self.scheduler.on_trial_result(None, trial, result)
        if shown:
            self.monitor.on_trial_result(0, [], trial, result)
            self.monitor.on_step_end(0, [])

    def fail(self, trial: Trial) -> None:
        self.searcher.last_errors[trial.trial_id] = "no luck"
        self.searcher.on_trial_complete(trial.trial_id, error=True)
        self.monitor.on_step_end(0, [])


class Shown:
    """TensorBoard's view of a folder."""

    def __init__(self, folder: Path) -> None:
        self._events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()

    def scalars(self, tag: str) -> list[tuple[int, float]]:
        # Two "processes" of a test share a second and a pid, and their files' names then sort as
        # text: the tenth comes before the ninth. Real ones are seconds apart.
        events = sorted(self._events.Scalars(tag), key=lambda event: event.step)
        return [(event.step, pytest.approx(event.value)) for event in events]

    def messages(self) -> dict[str, bytes]:
        return dict(self._events.PluginTagToContent("hparams"))

    @property
    def status(self) -> int:
        return int(metadata.parse_session_end_info_plugin_data(self.messages()[END]).status)


def shown_trial(folder: Path, number: int) -> Shown:
    return Shown(trial_events(folder / "tensorboard", number))


def test_every_epoch_is_shown_in_all_its_numbers(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    trial = driver.start()
    for epoch, dice in enumerate((0.2, 0.6, 0.4), start=1):
        driver.report(trial, epoch, dice)
    shown = shown_trial(tmp_path, 0)
    expected = {
        "validation/dice": [(1, 0.2), (2, 0.6), (3, 0.4)],
        BEST_DICE: [(1, 0.2), (2, 0.6), (3, 0.6)],
        "training/learning_rate": [(1, 0.001), (2, 0.002), (3, 0.003)],
        "training/slices_per_second": [(1, 50.0), (2, 50.0), (3, 50.0)],
        "training/wait_share": [(1, 0.25), (2, 0.25), (3, 0.25)],
        "training/memory_gb": [(1, 1.5), (2, 1.5), (3, 1.5)],
        EPOCHS_RUN: [(1, 1.0), (2, 2.0), (3, 3.0)],
        "loss/total": [(1, 1.0), (2, 1 / 2), (3, 1 / 3)],
        "loss/dice": [(1, 2.0), (2, 1.0), (3, 2 / 3)],
    }
    assert {tag: shown.scalars(tag) for tag in expected} == expected


def test_the_table_names_every_parameter_that_varies_with_its_domain(tmp_path: Path) -> None:
    Driver(tmp_path)
    (content,) = Shown(tmp_path / "tensorboard").messages().values()
    described = metadata.parse_experiment_plugin_data(content)
    domains: dict[str, Any] = {}
    for info in described.hparam_infos:
        interval = info.domain_interval
        domains[info.name] = (
            list(info.domain_discrete)
            if info.HasField("domain_discrete")
            else (interval.min_value, interval.max_value)
        )
    assert domains == {
        "encoder": ["resnet18", "resnet34"],
        "pretrained": [False, True],
        "learning_rate": (1e-4, 1e-2),
        "batch_size": [8, 16],
        # 0 where it does not exist.
        "focal_weight": (0.0, 1.0),
    }
    types = {info.name: info.type for info in described.hparam_infos}
    assert (types["encoder"], types["pretrained"], types["batch_size"]) == (
        api_pb2.DATA_TYPE_STRING,
        api_pb2.DATA_TYPE_BOOL,
        api_pb2.DATA_TYPE_FLOAT64,
    )
    assert [metric.name.tag for metric in described.metric_infos] == [BEST_DICE, EPOCHS_RUN]


def test_progress_says_how_far_the_study_is_and_what_is_best(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    assert driver.notes[-1] == "trials 0/3"
    trial = driver.start()
    driver.report(trial, 1, 0.4)
    assert driver.notes[-1] == "trials 0/3, best Dice 0.400 (trial 0)"
    driver.monitor.show("reading the slices")
    assert driver.notes[-1] == "trials 0/3, best Dice 0.400 (trial 0), reading the slices"


def test_a_trial_is_in_the_table_from_its_start_with_its_values(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.start()
    messages = shown_trial(tmp_path, 0).messages()
    assert messages.keys() == {START}
    start = metadata.parse_session_start_info_plugin_data(messages[START])
    (row,) = driver.ledger.rows()
    values = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    assert values == {
        name: row.parameters[name]
        for name in ("encoder", "pretrained", "learning_rate", "batch_size", "focal_weight")
    }


def test_the_table_says_how_every_trial_ended(tmp_path: Path) -> None:
    driver = Driver(tmp_path, trials=4)
    complete, pruned, failed, running = (driver.start() for _ in range(4))
    for epoch in range(1, EPOCHS + 1):
        driver.report(complete, epoch, 0.5)
    driver.report(pruned, 1, 0.1)
    driver.fail(failed)
    driver.report(running, 1, 0.7)
    # Every two seconds at most it does so by itself.
    driver.monitor.tidy()
    assert [row.state for row in driver.ledger.rows()] == [
        *("COMPLETE", "PRUNED", "FAIL", "RUNNING"),
    ]
    assert shown_trial(tmp_path, 0).status == api_pb2.STATUS_SUCCESS
    assert shown_trial(tmp_path, 1).status == api_pb2.STATUS_SUCCESS
    assert shown_trial(tmp_path, 2).status == api_pb2.STATUS_FAILURE
    assert END not in shown_trial(tmp_path, 3).messages()


def test_a_study_of_two_processes_is_shown_as_one(tmp_path: Path) -> None:
    first = Driver(tmp_path)
    ended, interrupted, lost = (first.start() for _ in range(3))
    for epoch in range(1, EPOCHS + 1):
        first.report(ended, epoch, 0.5)
    first.report(interrupted, 1, 0.8)
    first.report(interrupted, 2, 0.7)
    # Killed after the journal knew of a trial's end, and before anybody was shown it.
    first.report(lost, 1, 0.1, shown=False)
    first.monitor.on_experiment_end([])

    second = Driver(tmp_path)
    files = sorted((tmp_path / "tensorboard").rglob("events.*"))
    resumed = second.start()
    # A process that was lost in its turn reports what has been shown already.
    second.report(resumed, 2, 0.7)
    second.report(resumed, 3, 0.6)

    assert shown_trial(tmp_path, 0).scalars("validation/dice") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    shown = shown_trial(tmp_path, 1)
    assert shown.scalars("validation/dice") == [(1, 0.8), (2, 0.7), (3, 0.6)]
    assert shown.scalars(BEST_DICE) == [(1, 0.8), (2, 0.8), (3, 0.8)]
    assert shown.status == api_pb2.STATUS_SUCCESS
    assert shown_trial(tmp_path, 2).scalars(BEST_DICE) == [(1, 0.1)]
    assert shown_trial(tmp_path, 2).scalars(EPOCHS_RUN) == [(1, 1.0)]
    assert shown_trial(tmp_path, 2).status == api_pb2.STATUS_SUCCESS

    # Everything is reported once, and a third process that has nothing to report writes nothing.
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1
    for tag in (CONFIGURATION, START, END):
        counts = [path.read_bytes().count(tag.encode()) for path in files]
        assert sum(counts) == {CONFIGURATION: 1, START: 3, END: 2}[tag]
    before = sorted((tmp_path / "tensorboard").rglob("events.*"))
    Driver(tmp_path)
    assert sorted((tmp_path / "tensorboard").rglob("events.*")) == before


def test_writers_are_open_for_running_trials_only(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    before = threading.active_count()
    trial = driver.start()
    # Each writer is a thread.
    assert threading.active_count() == before + 1
    for epoch in range(1, EPOCHS + 1):
        driver.report(trial, epoch, 0.5)
    assert threading.active_count() == before
    driver.start()
    driver.monitor.on_experiment_end([])
    assert threading.active_count() == before


def test_only_the_newest_pictures_of_a_trial_are_kept(tmp_path: Path) -> None:
    dark, bright = (np.full((8, 6, 3), level, dtype=np.uint8) for level in (10, 200))
    replace_pictures(tmp_path / "slices", {"slices/best": dark, "slices/worst": dark}, 1)
    replace_pictures(tmp_path / "slices", {"slices/best": bright}, 4)
    assert len(list((tmp_path / "slices").iterdir())) == 1
    events = EventAccumulator(str(tmp_path / "slices")).Reload()
    assert events.Tags()["images"] == ["slices/best"]
    (image,) = events.Images("slices/best")
    assert (image.step, image.height, image.width) == (4, 8, 6)
