"""A search whose storage is full, or read-only, stops with one line and goes on when it is not."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_experiment import NAME, write_experiment

from strokeseg.records.experiment import Experiment, open_experiment
from strokeseg.records.leaderboard import read_leaderboard

ROOT = Path(__file__).resolve().parents[1]
TRIALS, EPOCHS = 3, 12


class Place:
    """A shell in mounts of its own, where a small disk is the storage.

    Args:
        storage: An empty folder; what is mounted there, only the shell sees.
        megabytes: Of the disk.
    """

    def __init__(self, storage: Path, megabytes: int) -> None:
        self._shell = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sleep", "infinity"]
        )
        self._storage = storage
        # Until unshare has unshared, the mount would be everybody's.
        own = Path("/proc/self/ns/mnt").readlink()
        while Path(f"/proc/{self._shell.pid}/ns/mnt").readlink() == own:
            time.sleep(0.02)
        self.run(f"mount -t tmpfs -o size={megabytes}m tmpfs {storage}")

    def command(self, words: str) -> list[str]:
        """Return the command line that runs a shell's command in there."""
        return ["nsenter", "--target", str(self._shell.pid), "--mount", "sh", "-c", words]

    def run(self, words: str, *, check: bool = True) -> str:
        return subprocess.run(
            self.command(words), capture_output=True, text=True, check=check
        ).stdout

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    storage = tmp_path / "storage"
    storage.mkdir()
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(storage)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    made = Place(storage, 300)
    try:
        yield made
    finally:
        made.close()


def _reported(place: Place, experiment: Experiment) -> Counter[tuple[int, int]]:
    """How often each epoch of each trial was reported."""
    lines = place.run(f"cat {experiment.journal('axial')}", check=False).splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return Counter(
        (entry["trial_id"], entry["step"]) for entry in entries if "intermediate_value" in entry
    )


@pytest.mark.slow
def test_a_full_or_read_only_storage_stops_a_search_that_goes_on_later(
    place: Place, tmp_path: Path, phantom_cases: Path
) -> None:
    budget = {"trials": TRIALS, "epochs": EPOCHS, "grace_epochs": EPOCHS}
    config = write_experiment(
        tmp_path, data=phantom_cases, splits={"test_share": 0.0}, search=budget
    )
    storage = tmp_path / "storage"
    experiment = open_experiment(str(config), str(storage))
    search = shlex.join(
        [sys.executable, "-m", "strokeseg.search", "--axis", "axial"]
        + ["--experiment", str(config), "--storage", str(storage)]
    )

    def begun() -> subprocess.Popen[str]:
        return subprocess.Popen(
            place.command(f"exec {search}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Whoever enters other mounts leaves the working folder.
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
        output = process.communicate(timeout=200)[0].splitlines()
        assert not any("Traceback" in line for line in output), "\n".join(output)
        return process.returncode, [line for line in output if line.startswith("error: ")]

    # Filled up by somebody else, to the last byte, in mid search.
    before = _reported(place, experiment)
    filling = begun()
    while _reported(place, experiment) == before:
        assert filling.poll() is None, ended(filling)
        time.sleep(0.1)
    place.run(f"dd if=/dev/zero of={storage}/filler bs=64k", check=False)
    code, (error,) = ended(filling)
    assert code == 2
    assert f"{storage}/{NAME}/search/axial/" in error
    assert "No space left on device" in error or "cannot be written" in error
    place.run(f"rm {storage}/filler")

    # Read-only before it begins.
    place.run(f"mount -o remount,ro {storage}")
    code, (error,) = ended(begun())
    assert code == 2
    assert "Read-only file system" in error
    place.run(f"mount -o remount,rw {storage}")

    assert ended(begun()) == (0, [])
    assert _reported(place, experiment) == {
        (trial, epoch): 1 for trial in range(TRIALS) for epoch in range(1, EPOCHS + 1)
    }
    board = tmp_path / "leaderboard.csv"
    board.write_text(place.run(f"cat {experiment.leaderboard_csv('axial')}"))
    rows = read_leaderboard(board)
    assert [(row.state, row.epochs_run) for row in rows] == [("COMPLETE", EPOCHS)] * TRIALS
