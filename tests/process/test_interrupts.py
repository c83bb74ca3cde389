"""Ctrl-C and SIGTERM at any point end a command, which leaves nothing behind and can go on."""

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
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray import tune

from strokeseg import cli
from strokeseg.process.interrupts import (
    check_interrupt,
    holding_interrupts,
    lending_interrupts_to_tune,
)

INTERRUPTS = int(os.environ.get("STROKESEG_INTERRUPTS", "3"))
SEED = int(os.environ.get("STROKESEG_INTERRUPTS_SEED", "7"))
PATIENCE_SECONDS = 60
# About a run on two idle CPUs: what is drawn beyond its end interrupts nothing.
RUN_SECONDS = 50.0
EXPERIMENT = """\
data: {phantom: {cases: 6, spacing_mm: 6.0}}
splits: {folds: 2, test_share: 0.4}
search:
  {space: space.yaml, trials: 1, epochs: 2, grace_epochs: 1, slices_per_epoch: 8,
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
def test_a_ctrl_c_that_nothing_raised_is_reported_at_the_end() -> None:
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


# SIGTERM comes again and again, as from somebody who is in a hurry, until all is over.
HURRIED = """
import os, signal, sys, threading, time
from pathlib import Path
from ray import tune
from strokeseg import cli
from strokeseg.phantoms.dataset import write_phantoms
from strokeseg.process.interrupts import lending_interrupts_to_tune
from strokeseg.compute.session import ray_session

folder = Path(sys.argv[1])

def hurry():
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)

def trainable(config):
    for _ in range(3000):
        tune.report({"dice": 0.5})
        time.sleep(0.1)

class Hurrying(tune.Callback):
    def on_trial_result(self, **info):
        if info["result"]["training_iteration"] == 1:
            threading.Thread(target=hurry, daemon=True).start()

def work():
    with ray_session():
        write_phantoms(folder / "cases", cases=2, spacing_mm=6.0, seed=0, workers=2)
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        run_config = tune.RunConfig(
            storage_path=str(folder / "tune"), verbose=0, callbacks=[Hurrying()]
        )
        with lending_interrupts_to_tune():
            tune.Tuner(trainable, run_config=run_config).fit()
        print("Tune has ended its run")
    return 0

# What still comes when the command is over is not its own any more.
signal.signal(signal.SIGTERM, lambda *_: None)
sys.exit(cli.run_command(work))
"""


def test_sigterm_ends_tune_and_ray_in_peace_however_often_it_comes(tmp_path: Path) -> None:
    # Ray's sockets must have short names.
    temporary = Path(tempfile.mkdtemp(prefix="int-"))
    # As a script that starts it in the background has it, of which SIGTERM is independent.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run(
            [sys.executable, "-c", HURRIED, tmp_path],
            env={**os.environ, "TMPDIR": str(temporary), "RAY_AIR_NEW_OUTPUT": "0"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout) == (143, "Tune has ended its run\n"), done.stderr
    # Tune's own log goes before it, and no stack of Ray's.
    assert done.stderr.splitlines()[-1] == "terminated", done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "***", "Aborted")), done.stderr
    deadline = time.monotonic() + 10
    while left := left_in(temporary):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    temporary.rmdir()


def test_sigterm_is_heard_before_a_command_has_loaded_its_libraries() -> None:
    script = (
        "import os, signal, sys\n"
        "from strokeseg.__main__ import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'strokeseg.predict':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            signal.pause()\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.exit(main(['predict']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")


@pytest.mark.parametrize(
    "interrupt",
    [
        pytest.param("os.kill(os.getpid(), signal.SIGTERM); wait()", id="after it"),
        # Whoever ends a group of processes may end others first.
        pytest.param("subprocess.Popen(['kill', '-TERM', str(os.getpid())])", id="just before it"),
    ],
)
def test_what_fails_with_sigterm_fails_for_it(interrupt: str) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "from strokeseg import cli\n"
        "def wait():\n"
        "    for _ in range(300):\n"
        "        time.sleep(0.1)\n"
        "def work():\n"
        "    try:\n"
        f"        {interrupt}\n"
        "    finally:\n"
        "        raise ConnectionError('Ray is gone')\n"
        "sys.exit(cli.run_command(work))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")


def test_the_exit_code_is_that_of_sigterm_where_it_came_in_code_that_exec_ran(
    tmp_path: Path,
) -> None:
    (tmp_path / "command.py").write_text(
        "import os, signal, sys, time\n"
        "from strokeseg import cli\n"
        "code = 'os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)'\n"
        "sys.exit(cli.run_command(lambda: exec(code)))\n"
    )
    # Python heeds its own flag with -m only.
    done = subprocess.run(
        [sys.executable, "-m", "command"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")


def left_in(temporary: Path) -> list[str]:
    """The processes that have a folder for temporary files, and what lies in it."""
    mark = f"TMPDIR={temporary}\0".encode()
    processes = []
    for one in psutil.process_iter(["pid"]):
        try:
            environment = Path(f"/proc/{one.pid}/environ").read_bytes()
            if mark in environment + b"\0" and one.status() != psutil.STATUS_ZOMBIE:
                processes.append(f"{one.pid} {one.name()}")
        except (OSError, psutil.Error):
            continue
    return [*processes, *(str(path) for path in temporary.iterdir())]


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

    def stop(self, stop_signal: StopSignal) -> None:
        if stop_signal.whole_group:
            os.killpg(self.process.pid, stop_signal.number)
        else:
            self.process.send_signal(stop_signal.number)


@dataclass(frozen=True, kw_only=True)
class StopSignal:
    """A signal, and whether all that the command started gets it, too."""

    number: signal.Signals
    whole_group: bool


# A terminal's Ctrl-C; Docker and Kubernetes; systemd and Slurm.
STOP_SIGNALS = (
    StopSignal(number=signal.SIGTERM, whole_group=False),
    StopSignal(number=signal.SIGINT, whole_group=True),
    StopSignal(number=signal.SIGTERM, whole_group=True),
)


@pytest.mark.slow
@pytest.mark.timeout(1200 + 180 * INTERRUPTS)
def test_ctrl_c_and_sigterm_at_any_point_leave_nothing_behind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    draw = random.Random(SEED)
    reports = []
    waited = []
    for number in range(INTERRUPTS):
        stop_signal = STOP_SIGNALS[number % len(STOP_SIGNALS)]
        second = number % 2 == 1
        # The others find what the ones before have done, and so meet other steps.
        if number % 3 == 2:
            shutil.rmtree(run.storage, ignore_errors=True)
        # One in each part of the run.
        at = max(0.1, draw.uniform(number, number + 1) / INTERRUPTS * RUN_SECONDS)
        run.begin()
        try:
            run.process.communicate(timeout=at)
        except subprocess.TimeoutExpired:
            run.stop(stop_signal)
            stopped_at = time.monotonic()
            if second:
                time.sleep(draw.uniform(0.0, 2.0))
                if run.process.poll() is None:
                    run.stop(stop_signal)
            _, err = run.process.communicate(timeout=PATIENCE_SECONDS)
            waited.append(time.monotonic() - stopped_at)
            reports.append(
                f"{stop_signal} after {at:.1f} s{', twice' * second}: {run.process.returncode}"
            )
            # Before the command hears it, and while Python itself ends, shells give that code, too.
            early = stop_signal.number is signal.SIGTERM and at < 1
            ends = (128 + stop_signal.number, *([-stop_signal.number] * (second or early)))
            assert run.process.returncode in ends, "\n".join([*reports, err])
            assert "Traceback" not in err or (second and stop_signal.number is signal.SIGINT), err
            assert "Aborted" not in err and "***" not in err, err
        _wait_until_nothing_is_left(run, reports)
    assert reports
    print(*reports, f"ended in {max(waited, default=0.0):.1f} s at most", sep="\n")
    begun = time.monotonic()
    run.begin()
    _, err = run.process.communicate(timeout=600)
    assert run.process.returncode == 0, err
    print(f"the last one ran to its end in {time.monotonic() - begun:.1f} s")
    assert (run.storage / "small" / "bundle.zip").is_file()
    _wait_until_nothing_is_left(run, reports)
    run.temporary.rmdir()


def _wait_until_nothing_is_left(run: Run, reports: list[str]) -> None:
    # The parts of Ray that are to end are given a moment.
    deadline = time.monotonic() + 10
    while left := left_in(run.temporary):
        assert time.monotonic() < deadline, (left, reports)
        time.sleep(0.2)
