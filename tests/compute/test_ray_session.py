"""A Ray session leaves nothing behind, whoever ends it, and disturbs no other."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from strokeseg import cli
from strokeseg.process.temporary_folder import temporary_folder

WAIT_SECONDS = 60

# Starts a session as a command does, prints Ray's folder and the pids of its processes, and
# does what it is sent.
SESSION = """
import os, signal, sys, time
from pathlib import Path
import ray
from strokeseg import cli
from strokeseg.compute.session import ray_session

@ray.remote(max_retries=0)
def crash():
    os.kill(os.getpid(), signal.SIGSEGV)

def work():
    with cli.logging_to(Path(sys.argv[1])), ray_session():
        node = ray._private.worker._global_node
        pids = {name: of[0].process.pid for name, of in node.all_processes.items()}
        print(node.temp_dir, pids["raylet"], pids["gcs_server"], flush=True)
        command = sys.stdin.readline().strip()
        if command == "crash":
            try:
                ray.get(crash.remote())
            except ray.exceptions.WorkerCrashedError:
                pass
        elif command == "fail":
            raise RuntimeError("a bug")
        elif command == "wait":
            time.sleep(600)
    return 0

sys.exit(cli.run_command(work))
"""


class Session:
    """A process that runs a Ray session.

    Attributes:
        folder: Where Ray keeps its files.
        pids: Those of Ray's `raylet` and `gcs_server`.
    """

    def __init__(self, log: Path, place: Path, **environment: str) -> None:
        variables = {**os.environ, "TMPDIR": str(place), **environment}
        variables.pop("RAY_ADDRESS", None)
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(log)],
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
            text=True,
            env=variables,
        )
        assert self.process.stdout is not None
        folder, raylet, gcs = self.process.stdout.readline().split()
        self.folder = Path(folder)
        self.pids = {"raylet": int(raylet), "gcs_server": int(gcs)}

    def tell(self, word: str) -> tuple[int, str, str]:
        """Say what to do; return the exit code and what was printed, to either stream."""
        printed, errors = self.process.communicate(f"{word}\n", timeout=WAIT_SECONDS)
        return self.process.returncode, printed, errors


@pytest.fixture
def place() -> Any:
    """A folder for temporary files whose name is short enough for Ray's sockets."""
    with temporary_folder(Path("/tmp"), "sst-") as folder:
        short = folder.parent
        yield short


def test_a_session_leaves_no_file_and_another_one_beside_it_alone(
    tmp_path: Path, place: Path
) -> None:
    first = Session(tmp_path / "first.log", place)
    second = Session(tmp_path / "second.log", place)
    assert first.folder != second.folder and first.folder.is_relative_to(place)
    assert first.folder.parent.stat().st_mode & 0o077 == 0
    assert first.tell("end") == (0, "", "")
    assert not first.folder.parent.exists()
    assert (second.folder / "session_latest" / "logs").is_dir()
    assert second.tell("end") == (0, "", "")
    assert not second.folder.parent.exists()


@pytest.mark.slow
def test_a_session_whose_command_was_killed_ends_and_is_swept_away_by_the_next(
    tmp_path: Path, place: Path
) -> None:
    killed = Session(tmp_path / "killed.log", place)
    killed.process.kill()
    killed.process.communicate()
    assert until(lambda: not any(psutil.pid_exists(pid) for pid in killed.pids.values()))
    assert killed.folder.is_dir()
    assert Session(tmp_path / "next.log", place).tell("end") == (0, "", "")
    assert not killed.folder.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["raylet", "gcs_server"])
def test_losing_one_of_rays_processes_ends_the_command_with_one_line(
    tmp_path: Path, place: Path, lost: str
) -> None:
    session = Session(tmp_path / "run.log", place)
    assert session.process.stdin is not None
    session.process.stdin.write("wait\n")
    session.process.stdin.flush()
    os.kill(session.pids[lost], signal.SIGKILL)
    # Ray itself would go on for a minute.
    printed, errors = session.process.communicate(timeout=WAIT_SECONDS)
    assert session.process.returncode == 2
    assert errors.splitlines() == [
        f"error: Ray's process {lost} ended (signal 9); the same command goes on from there"
    ]
    assert printed == ""
    assert f"the end of Ray's {lost}.out" in session.log.read_text()
    assert not session.folder.parent.exists()
    assert until(lambda: not any(psutil.pid_exists(pid) for pid in session.pids.values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "kept"),
    [
        ("end", 0, None),
        ("crash", 0, "Fatal Python error: Segmentation fault"),
        ("fail", 1, "the end of Ray's raylet.out"),
    ],
)
def test_what_ray_said_last_is_kept_when_something_broke(
    tmp_path: Path, place: Path, command: str, code: int, kept: str | None
) -> None:
    session = Session(tmp_path / "run.log", place)
    assert session.tell(command)[:2] == (code, "")
    log = session.log.read_text()
    assert kept in log if kept else "the end of Ray's" not in log


@pytest.mark.slow
def test_a_long_folder_for_temporary_files_is_not_used(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    session = Session(tmp_path / "run.log", long)
    assert session.folder.parent.parent == Path("/tmp")
    assert session.tell("end") == (0, "", "")
    assert list(long.iterdir()) == []


def test_a_sweep_takes_dead_folders_and_no_others(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from strokeseg.process.temporary_folder import temporary_folder\n"
        "with temporary_folder(Path(sys.argv[1]), 'a-') as folder:\n"
        "    (folder / 'file').touch()\n    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (abandoned,) = tmp_path.iterdir()
    beginning, other = tmp_path / "a-beginning", tmp_path / "b-other" / "in"
    beginning.mkdir()
    other.mkdir(parents=True)
    with temporary_folder(tmp_path, "a-") as used:
        assert not abandoned.exists()
        with temporary_folder(tmp_path, "a-") as beside:
            assert used.is_dir() and used.parent != beside.parent
        assert not beside.parent.exists()
    assert sorted(tmp_path.iterdir()) == [beginning, other.parent]


def test_logs_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_LOG_BYTES", 1000)
    for _ in range(10):
        # Each resumption opens the log again.
        with cli.logging_to(tmp_path / "run.log"):
            for _ in range(10):
                logging.getLogger("strokeseg").info("x" * 80)
    logs = sorted(tmp_path.iterdir())
    assert [log.name for log in logs] == ["run.log", "run.log.1"]
    assert all(0 < log.stat().st_size <= 1000 for log in logs)


def until(done: Callable[[], bool]) -> bool:
    """Wait for something that other processes do; return whether they did."""
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
