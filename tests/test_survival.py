"""One search, interrupted and killed at random: nothing is lost, nothing is run twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from shown_trials import scalars_of, shown_trial, status_of
from tensorboard.plugins.hparams import api_pb2
from tiny_experiment import Place, write_experiment

import strokeseg.prepare
from strokeseg.compute.allotment import Allotment
from strokeseg.imaging.slice_table import table_to_arrays
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import read_preparation
from strokeseg.training.slice_set import slices_in_memory
from strokeseg.tuning.journal import open_journal
from strokeseg.tuning.trial import TrialSettings, train_trial

# Twenty take seven minutes on two CPUs.
KILLS = int(os.environ.get("STROKESEG_STRIKES", "4"))
# Each once, before any comes again.
KINDS = ("driver", "session", "interrupt", "trial")
TRIALS, MOST_EPOCHS_BETWEEN = 5, 4
# The kills leave more than half of the search's epochs to run undisturbed.
EPOCHS = -(-KILLS * MOST_EPOCHS_BETWEEN * 2 // TRIALS)
MOST_SECONDS_AT_THE_START = 8.0
PATIENCE_SECONDS = 240.0


@pytest.fixture
def place(tmp_path: Path, launch: Callable[..., Any], phantom_cases: Path) -> Place:
    budget = {"trials": TRIALS, "epochs": EPOCHS, "grace_epochs": EPOCHS}
    config = write_experiment(
        tmp_path, data=phantom_cases, splits={"test_share": 0.0}, search=budget
    )
    made = Place(config=config, storage=tmp_path / "runs", cases=phantom_cases)
    assert launch(strokeseg.prepare.main, *made.options).code == 0
    return made


class Search:
    """The command, started again whenever it was ended, and what the journal tells of it."""

    def __init__(self, place: Place, log: Path) -> None:
        self.experiment = place.experiment
        options = map(str, place.options)
        self._command = [sys.executable, "-m", "strokeseg.search", "--axis", "axial", *options]
        self._log = log.open("w")
        self.started = 0
        self.orphans: list[psutil.Process] = []
        self.begin()

    def begin(self) -> None:
        self.started += 1
        # A shell starts what runs in its background with Ctrl-C ignored, and children inherit it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.driver = subprocess.Popen(
            self._command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        signal.signal(signal.SIGINT, before)

    def family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.driver.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def trial_processes(self) -> list[psutil.Process]:
        return [one for one in self.family() if _title(one).startswith("ray::ImplicitFunc")]

    def trials(self) -> list[FrozenTrial]:
        path = self.experiment.journal("axial")
        if not path.exists():
            return []
        storage = open_journal(path)
        if "axial" not in optuna.get_all_study_names(storage):
            return []
        return optuna.load_study(study_name="axial", storage=storage).trials

    def epochs(self) -> int:
        return sum(len(trial.intermediate_values) for trial in self.trials())

    def wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            assert self.driver.poll() is None, "the search ended by itself"
            assert time.monotonic() < deadline, "the search does not go on"
            time.sleep(0.05)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def kill_part(search: Search, what: str) -> None:
    """Kill one part of a running search, and begin it again where that ends it."""
    family = search.family()
    if what == "trial":
        _kill(search.trial_processes()[:1])
        return
    if what == "driver":
        search.driver.kill()
    elif what == "interrupt":
        search.driver.send_signal(signal.SIGINT)
    else:
        _kill([one for one in family if "raylet" in _title(one) or "gcs_server" in _title(one)])
    search.driver.wait(PATIENCE_SECONDS)
    assert search.driver.returncode != 0
    assert (search.driver.returncode == 130) == (what == "interrupt")
    # Trials that outlive their driver would write beside those that follow them. Ray's agents
    # take a minute to see that they are alone: they are looked for at the end.
    search.orphans += family
    trials = [one for one in family if _title(one).startswith("ray::ImplicitFunc")]
    _, alive = psutil.wait_procs(trials, timeout=60)
    assert not alive, [_title(one) for one in alive]
    search.begin()


@pytest.mark.slow
@pytest.mark.timeout(1200 + 90 * KILLS)
def test_kills_lose_nothing_and_run_nothing_twice(place: Place, tmp_path: Path) -> None:
    dice = random.Random(20151106)
    search = Search(place, tmp_path / "search.log")
    kills: Counter[str] = Counter()
    seen: dict[int, FrozenTrial] = {}
    while sum(kills.values()) < KILLS:
        what = KINDS[sum(kills.values()) % len(KINDS)]
        if what in ("driver", "session") and dice.random() < 0.3:
            # In its first seconds, perhaps before there is a Ray at all.
            time.sleep(dice.uniform(0, MOST_SECONDS_AT_THE_START))
            assert search.driver.poll() is None
            if what == "session":
                search.wait_for(lambda: any("raylet" in _title(one) for one in search.family()))
        else:
            more = search.epochs() + dice.randint(1, MOST_EPOCHS_BETWEEN)
            search.wait_for(lambda more=more: search.epochs() >= more)  # type: ignore[misc]
        kill_part(search, what)
        kills[what] += 1
        seen = _nothing_is_forgotten(seen, search.trials())
    assert search.driver.wait(PATIENCE_SECONDS * 2) == 0, (tmp_path / "search.log").read_text()

    ended = search.trials()
    _nothing_is_forgotten(seen, ended)
    assert [trial.number for trial in ended] == list(range(TRIALS))
    assert all(trial.state is TrialState.COMPLETE for trial in ended)
    assert len({json.dumps(trial.params) for trial in ended}) == TRIALS
    for trial in ended:
        assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
        assert trial.value == max(trial.intermediate_values.values())
    _check_what_is_shown(place, ended)
    _, alive = psutil.wait_procs(search.orphans, timeout=PATIENCE_SECONDS)
    assert not alive, [_title(one) for one in alive]
    # The first trial was interrupted often; alone and undisturbed it gives the same numbers.
    undisturbed = _train_undisturbed(search.experiment, ended[0], tmp_path / "undisturbed")
    assert undisturbed == ended[0].intermediate_values
    print(f"{sum(kills.values())} kills ({dict(kills)}), {search.started} starts, {TRIALS} trials")


def _nothing_is_forgotten(
    before: dict[int, FrozenTrial], now: list[FrozenTrial]
) -> dict[int, FrozenTrial]:
    for number, trial in before.items():
        assert trial.intermediate_values.items() <= now[number].intermediate_values.items()
        assert trial.params.items() <= now[number].params.items()
        if trial.state.is_finished():
            assert (now[number].state, now[number].value) == (trial.state, trial.value)
    return {trial.number: trial for trial in now}


def _check_what_is_shown(place: Place, trials: list[FrozenTrial]) -> None:
    for trial in trials:
        events = shown_trial(place, "axial", f"{trial.number:04d}")
        shown = scalars_of(events, "validation/dice")
        # Each epoch once; a kill may fall between the journal's note of one and its picture.
        assert [step for step, _ in shown] == sorted({step for step, _ in shown})
        assert len(shown) >= len(trial.intermediate_values) - KILLS
        best = max(trial.intermediate_values.values())
        assert scalars_of(events, "validation/best_dice")[-1][1] == pytest.approx(best)
        assert status_of(events) == api_pb2.STATUS_SUCCESS


def _train_undisturbed(
    experiment: Experiment, trial: FrozenTrial, folder: Path
) -> dict[int, float]:
    preparation = read_preparation(experiment)
    settings = TrialSettings(
        axis="axial",
        epochs=EPOCHS,
        slices_per_epoch=16,
        seed=0,
        folds=tuple(preparation.names(str(fold)) for fold in range(2)),
        validation_fold=0,
        trials_folder=str(folder),
        tensorboard_folder=str(folder / "tensorboard"),
        allotment=Allotment(cpus=1, gpus=0, concurrent=1),
        deterministic=False,
        sequences=experiment.config.data.sequences,
        spacing_mm=preparation.spacing_mm,
        preparation_hash=preparation.fingerprint,
        code_version="test",
    )
    files = (experiment.slices_folder / "axis=axial").rglob("*.parquet")
    tables = [
        pq.read_table(path, partitioning=None).combine_chunks()
        for path in sorted(files, key=lambda path: path.stem)
    ]
    arrays = [table_to_arrays(table) for table in tables]
    slices = slices_in_memory(
        [images for images, _ in arrays],
        [masks for _, masks in arrays],
        np.concatenate([table["case"].to_numpy() for table in tables]),
    )
    proposal = {"number": trial.number, "config": trial.user_attrs["config"], "reported_epoch": 0}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = train_trial(proposal, slices, None, settings)
        return {result["epoch"]: result["dice"] for result in results}
    finally:
        torch.set_num_threads(threads)
