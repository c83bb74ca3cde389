"""One search on three hosts, through one fault after another: complete and exact in the end.

`pytest -s` shows how long the search took to go on after each.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from hosts import Host, hosts_on_a_switch, missing
from on_premise import reports
from tiny_experiment import write_experiment

from strokeseg.records.experiment import Experiment, open_experiment
from strokeseg.records.leaderboard import read_leaderboard
from strokeseg.tuning.journal import open_journal

# More trials than any machine ends before the last fault; the last search asks for those that have
# begun by then.
MOST_TRIALS, EPOCHS, SLICES = 400, 8, 48
_MORE_EPOCHS = 3
_PORT = 6379
_CUT_SECONDS = 60.0
_PATIENCE_SECONDS = 240.0
_TOKEN = {"RAY_AUTH_MODE": "token"}
_TRIAL, _RAYLET = "ray::ImplicitFunc", "raylet/raylet"


class Search:
    """The search as somebody starts it on the head, again and again.

    Args:
        hosts: The cluster's hosts, the head first.
        folder: One that all of them see.
    """

    def __init__(self, hosts: Sequence[Host], folder: Path) -> None:
        self.head, *self.workers = hosts
        config = write_experiment(
            folder,
            splits={"test_share": 0.0},
            search={
                "trials": MOST_TRIALS,
                "epochs": EPOCHS,
                "grace_epochs": EPOCHS,
                "slices_per_epoch": SLICES,
            },
        )
        self.storage = folder / "runs"
        self.experiment: Experiment = open_experiment(str(config), str(self.storage))
        self._options = ["--experiment", str(config), "--storage", str(self.storage)]
        self._options += ["--address", "auto"]
        self.log = folder / "search.log"

    def launch(self) -> None:
        """Make a cluster of the hosts; all know one token."""
        self.head.run("ray", "get-auth-token", "--generate")
        for host in self.workers:
            shutil.copytree(self.head.home / ".ray", host.home / ".ray", dirs_exist_ok=True)
        self.start_head()
        for host in self.workers:
            self.join(host)
        self.head.run("strokeseg", "prepare", *self._options, **_TOKEN)

    def start_head(self) -> None:
        words = ("--head", f"--port={_PORT}", "--num-cpus=1", "--include-dashboard=false")
        self.head.run("ray", "start", *words, **_TOKEN)

    def join(self, host: Host) -> None:
        """Start Ray on a host, as `ray up` does, whatever is left of it there."""
        host.run("ray", "stop", "--force", **_TOKEN)
        address = f"--address={self.head.address}:{_PORT}"
        host.run("ray", "start", address, "--num-cpus=1", **_TOKEN)

    @contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Search, with more options perhaps, for as long as the block takes."""
        words = ["strokeseg", "search", "--axis", "axial", *self._options, *more]
        with self.log.open("w") as log:
            process = subprocess.Popen(self.head.command(words, **_TOKEN), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def epochs(self) -> int:
        return len(reports(self.experiment, "axial"))

    def begun(self) -> int:
        """How many trials have begun."""
        storage = open_journal(self.experiment.journal("axial"))
        return len(optuna.load_study(study_name="axial", storage=storage).trials)

    def goes_on(self, what: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the search has gone on, and say how long that took."""
        wanted, begun = self.epochs() + _MORE_EPOCHS, time.monotonic()
        self.await_that(f"the search after {what}", process, lambda: self.epochs() >= wanted)
        print(f"{what}: {_MORE_EPOCHS} more epochs after {time.monotonic() - begun:.1f} s")

    def await_that(
        self, what: str, process: subprocess.Popen[bytes], done: Callable[[], object]
    ) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not done():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what} did not come: {self.log.read_text()}"
            time.sleep(0.1)


def _trains(host: Host) -> bool:
    return host.run("pgrep", "--full", _TRIAL, check=False).returncode == 0


def _signal(host: Host, name: str, process: str) -> None:
    """Send a signal to one process of a host."""
    host.run("sh", "-c", f"kill -{name} $(pgrep --oldest --full {process})")


@pytest.fixture
def search() -> Iterator[Search]:
    if reason := missing():
        pytest.skip(f"hosts of namespaces cannot be made here: {reason}")
    # Ray's sockets need short names.
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as place:
        folder = Path(place) / "h"
        with hosts_on_a_switch(("head", "first", "second"), folder) as hosts:
            yield Search(list(hosts.values()), folder / "shared")


@pytest.mark.slow
def test_a_search_through_one_fault_after_another_ends_complete_and_exact(search: Search) -> None:
    first, second = search.workers
    search.launch()
    with search.running() as process:
        search.await_that("the first trials", process, lambda: search.epochs() > _MORE_EPOCHS)
        search.await_that("trials everywhere", process, lambda: _trains(first) and _trains(second))

        _signal(first, "KILL", _TRIAL)
        search.goes_on("kill -9 of a trial", process)

        second.run("ip", "link", "set", "eth0", "down")
        begun = time.monotonic()
        search.goes_on("a host cut off", process)
        time.sleep(max(0.0, begun + _CUT_SECONDS - time.monotonic()))
        second.run("sh", "-c", "ip link set eth0 up && ip route add default via 10.77.0.254")
        search.goes_on("the host's return to the network", process)
        search.join(second)
        search.await_that("trials on it again", process, lambda: _trains(second))
        search.goes_on("its return to the cluster", process)

        _signal(first, "TERM", _RAYLET)
        search.goes_on("SIGTERM of a host's Ray, as before a spot instance ends", process)
        search.join(first)

        # A disk that refuses writes on one host only: the search stops, and says why.
        search.await_that("trials on it again", process, lambda: _trains(second))
        storage = search.storage
        second.run(
            "sh", "-c", f"mount --bind {storage} {storage} && mount -o remount,bind,ro {storage}"
        )
        process.wait(_PATIENCE_SECONDS)
        output = search.log.read_text()
        rows = read_leaderboard(search.experiment.leaderboard_csv("axial"))
        assert process.returncode == 2, [(row.trial, row.state, row.reason) for row in rows]
        assert "Traceback" not in output
        assert "Read-only file system" in output.splitlines()[-1]
        second.run("umount", str(storage))

    with search.running() as process:
        search.goes_on("the storage's return, and the same command", process)
        second.kill()
        search.goes_on("kill -9 of a whole host", process)
        # All of Ray and the search; a pattern must not find the shell that looks for it.
        everything = "[g]cs_server|[r]aylet|[r]ay::|[s]trokeseg search"
        search.head.run("sh", "-c", f"kill -9 $(pgrep --full '{everything}')", check=False)
        process.wait(_PATIENCE_SECONDS)

    search.start_head()
    search.join(first)
    trials = search.begun()
    with search.running("--trials", str(trials)) as process:
        search.goes_on("a new head, and the command that ends with these trials", process)
        assert process.wait(2 * _PATIENCE_SECONDS) == 0, search.log.read_text()
    rows = read_leaderboard(search.experiment.leaderboard_csv("axial"))
    ends = [(row.state, row.epochs_run, row.reason) for row in rows]
    assert ends == [("COMPLETE", EPOCHS, "")] * trials
    assert set(reports(search.experiment, "axial").values()) == {1}
    assert search.epochs() == trials * EPOCHS
    print(f"{trials} trials")
