"""Ctrl-C at any point ends a command, leaves nothing behind, and the same command goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray import tune

from strokeseg import cli
from strokeseg.interrupts import (
    check_interrupt,
    holding_interrupts,
    lending_interrupts_to_tune,
)

INTERRUPTS = int(os.environ.get("STROKESEG_INTERRUPTS", "2"))
PATIENCE_SECONDS = 60
# About a run on two idle CPUs: what is drawn beyond its end strikes nothing.
RUN_SECONDS = 100.0
EXPERIMENT = """\
data: {phantom: {cases: 8, spacing_mm: 6.0}}
splits: {folds: 2, test_share: 0.25}
search:
  {space: space.yaml, trials: 2, epochs: 2, grace_epochs: 1, slices_per_epoch: 8,
   confirm_trials: 0}
ensemble: {members_per_axis: 1, candidates_per_axis: 1}
"""
SPACE = """\
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {value: 8}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
"""


class Swallows:
    """An object whose end meets a Ctrl-C, which Python prints and forgets."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    """Hear Ctrl-C, though whoever began the tests may have ignored it for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupts")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_ctrl_c_is_raised_with_the_next_progress(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reached = []

    def work() -> int:
        with cli.progress("Working") as show:
            show(0, 2, "")
            lost = Swallows()
            del lost
            reached.append("after")
            show(1, 2, "")
            reached.append("too far")
        return 0

    assert cli.run_command(work) == 130
    assert reached == ["after"]
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # It is forgotten with the command that it was for.
    check_interrupt()


@pytest.mark.usefixtures("default_interrupts")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_nothing_raised_is_told_at_the_end() -> None:
    def work() -> int:
        lost = Swallows()
        del lost
        return 0

    assert cli.run_command(work) == 130


@pytest.mark.usefixtures("default_interrupts")
def test_a_ctrl_c_waits_for_what_must_not_be_cut_short() -> None:
    reached = []

    def work() -> int:
        with holding_interrupts():
            signal.raise_signal(signal.SIGINT)
            reached.append("all of it")
        reached.append("too far")
        return 0

    assert cli.run_command(work) == 130
    assert reached == ["all of it"]


@pytest.mark.usefixtures("default_interrupts")
def test_a_command_that_is_to_ignore_ctrl_c_does() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def work() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    assert cli.run_command(work) == 0


@pytest.mark.usefixtures("default_interrupts", "local_ray")
def test_a_search_that_is_to_ignore_ctrl_c_does(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rounds = []

    class Interrupting(tune.Callback):
        def on_trial_result(self, **info: object) -> None:
            rounds.append(info)
            signal.raise_signal(signal.SIGINT)

    def trainable(config: dict[str, object]) -> None:
        for _ in range(3):
            tune.report({"dice": 0.5})

    tuner = tune.Tuner(
        trainable,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), verbose=0, callbacks=[Interrupting()]
        ),
    )

    def work() -> int:
        with lending_interrupts_to_tune():
            tuner.fit()
        return 0

    assert cli.run_command(work) == 0
    assert len(rounds) == 3
    check_interrupt()


@pytest.mark.usefixtures("default_interrupts", "local_ray")
@pytest.mark.parametrize("when", ["during", "after", "never"])
def test_tune_gives_ctrl_c_back(when: str, tmp_path: Path) -> None:
    class Interrupting(tune.Callback):
        def on_trial_result(self, **info: object) -> None:
            if when == "during":
                signal.raise_signal(signal.SIGINT)

    tuner = tune.Tuner(
        lambda config: tune.report({"dice": 0.5}),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), verbose=0, callbacks=[Interrupting()]
        ),
    )

    def work() -> int:
        ours = signal.getsignal(signal.SIGINT)
        with lending_interrupts_to_tune():
            tuner.fit()
        assert signal.getsignal(signal.SIGINT) is ours
        if when == "after":
            signal.raise_signal(signal.SIGINT)
        return 0

    assert cli.run_command(work) == (0 if when == "never" else 130)


class Run:
    """A whole run in a process group of its own, as a shell gives one to a command.

    Attributes:
        storage: The folder of its results.
        temporary: What it and its processes have for a temporary folder.
        process: The command.
    """

    def __init__(self, folder: Path) -> None:
        config = folder / "small" / "experiment.yaml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(EXPERIMENT)
        (config.parent / "space.yaml").write_text(SPACE)
        self.storage = folder / "runs"
        # Ray's sockets must have short names.
        self.temporary = Path(tempfile.mkdtemp(prefix="int-"))
        self._command = [
            *(sys.executable, "-m", "strokeseg", "run"),
            *("--experiment", str(config), "--storage", str(self.storage)),
        ]
        self.process: subprocess.Popen[str]

    def begin(self) -> subprocess.Popen[str]:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.temporary), "HF_HUB_OFFLINE": "1"},
        )
        signal.signal(signal.SIGINT, before)
        self.process = process
        return process

    def interrupt(self) -> None:
        """Send Ctrl-C as a terminal does: to the command and to all that it started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def left(self) -> list[str]:
        """The processes that have this run's temporary folder, and the files in it."""
        mark = f"TMPDIR={self.temporary}\0".encode()
        processes = []
        for one in psutil.process_iter(["pid"]):
            try:
                environment = Path(f"/proc/{one.pid}/environ").read_bytes()
                if mark in environment + b"\0" and one.status() != psutil.STATUS_ZOMBIE:
                    processes.append(f"{one.pid} {one.name()}")
            except (OSError, psutil.Error):
                continue
        return [*processes, *(str(path) for path in self.temporary.iterdir())]


@pytest.mark.slow
@pytest.mark.timeout(1200 + 180 * INTERRUPTS)
def test_ctrl_c_at_any_point_leaves_nothing_behind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    draw = random.Random(7)
    told = []
    waited = []
    for number in range(INTERRUPTS):
        second = number % 3 == 1
        # Every other one finds what the one before it has done, and so meets other steps.
        if number % 2 == 0:
            shutil.rmtree(run.storage, ignore_errors=True)
        at = draw.uniform(0.1, RUN_SECONDS)
        run.begin()
        try:
            run.process.communicate(timeout=at)
        except subprocess.TimeoutExpired:
            run.interrupt()
            struck = time.monotonic()
            if second:
                time.sleep(draw.uniform(0.0, 2.0))
                if run.process.poll() is None:
                    run.interrupt()
            _, err = run.process.communicate(timeout=PATIENCE_SECONDS)
            waited.append(time.monotonic() - struck)
            told.append(f"{at:.1f} s{', twice' if second else ''}: {run.process.returncode}")
            # A second one, while Python itself ends, is what shells call 130, too.
            ends = (130, -signal.SIGINT) if second else (130,)
            assert run.process.returncode in ends, (at, err)
            assert "Traceback" not in err or second, (at, err)
        _wait_until_nothing_is_left(run, at, told)
    assert told
    print(f"interrupted {len(told)} times, ended in {max(waited, default=0.0):.1f} s at most")
    run.begin()
    _, err = run.process.communicate(timeout=600)
    assert run.process.returncode == 0, err
    assert (run.storage / "small" / "bundle.zip").is_file()
    _wait_until_nothing_is_left(run, RUN_SECONDS, told)
    run.temporary.rmdir()


def _wait_until_nothing_is_left(run: Run, at: float, told: list[str]) -> None:
    # The parts of Ray that were told to end are given a moment.
    deadline = time.monotonic() + 10
    while left := run.left():
        assert time.monotonic() < deadline, (at, left, told)
        time.sleep(0.2)
