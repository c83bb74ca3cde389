"""A cluster of three hosts over ssh: launched, searched on, interrupted, brought home and removed.

`pytest -s` shows how long each part took.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, hosts_on_a_switch, missing
from on_premise import Cluster, reports
from tiny_experiment import write_experiment

from strokeseg import prepare
from strokeseg.ensemble.bundle import open_bundle
from strokeseg.errors import UserError
from strokeseg.imaging.slices import AXES
from strokeseg.records.experiment import Experiment, open_experiment, trial_state
from strokeseg.records.leaderboard import read_leaderboard
from strokeseg.training.checkpoint import load_state

_NODES = ("head", "first", "second")
_PATIENCE_SECONDS = 400.0
EPOCHS, SLICES = 24, 48


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    if reason := missing():
        pytest.skip(f"hosts of namespaces cannot be made here: {reason}")
    # Ray's sockets need short names.
    with (
        tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as place,
        hosts_on_a_switch((*_NODES, "laptop"), Path(place) / "h") as made,
    ):
        yield made


def wait_for(what: str, done: Callable[[], object]) -> None:
    """Wait for something, and say how long that took."""
    begun = time.monotonic()
    while not done():
        assert time.monotonic() < begun + _PATIENCE_SECONDS, f"{what} did not come"
        time.sleep(0.2)
    print(f"{what}: after {time.monotonic() - begun:.1f} s")


def epochs(experiment: Experiment) -> Counter[str]:
    """How many epochs the trial of each axis has reported."""
    return Counter(axis for axis in AXES for _ in reports(experiment, axis))


def histories(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """What each axis's trial, if it has not ended, remembers of its epochs and their seconds."""
    found = {}
    for axis in AXES:
        with suppress(UserError):
            found[axis] = load_state(trial_state(experiment.trials_folder(axis), 0))["history"]
    return found


def trains(host: Host) -> bool:
    return host.run("pgrep", "--full", "ray::ImplicitFunc", check=False).returncode == 0


@pytest.mark.slow
def test_a_search_over_three_hosts_outlives_one_of_them(hosts: dict[str, Host]) -> None:
    cluster = Cluster(hosts, _NODES, "laptop")
    shared = cluster.laptop.home.parent / "shared"
    config = write_experiment(
        shared,
        splits={"test_share": 0.0},
        search={
            "trials": 1,
            "epochs": EPOCHS,
            "grace_epochs": EPOCHS,
            "slices_per_epoch": SLICES,
        },
        ensemble={"candidates_per_axis": 1},
    )
    experiment = open_experiment(str(config), str(shared / "runs"))
    cluster.up()

    strangers = hosts["head"].run(
        *("ray", "job", "list", "--address", "http://127.0.0.1:8265"),
        check=False,
        HOME=str(hosts["laptop"].home / "strokeseg"),
        RAY_AUTH_MODE="disabled",
    )
    assert strangers.returncode != 0
    assert "oken" in strangers.stdout

    options = f"--experiment {config} --storage {shared / 'runs'}"
    cluster.submit(Path(prepare.__file__), [*options.split(), "--address", "auto"])
    assert experiment.prepared_folder.is_dir()
    run = f"strokeseg run {options} --on validation"
    job = f"ray job submit --submission-id three -- {run}"
    with cluster.watched(job) as terminal:
        wait_for("the first epoch", lambda: epochs(experiment))
        terminal.interrupt()
        assert "Job 'three' submitted" in terminal.text()
    assert "RUNNING" in cluster.exec("ray job status three")

    wait_for("a trial of every axis", lambda: len(epochs(experiment)) == len(AXES))
    killed = next(host for name in ("first", "second") if trains(host := hosts[name]))
    killed.kill()
    before = histories(experiment)
    assert len(before) > 1
    continued: set[str] = set()

    def all_went_on() -> bool:
        for axis, known in histories(experiment).items():
            first = before.get(axis, [])
            # Not begun from scratch: no epoch takes exactly as long as another one did.
            assert known[: len(first)] == first
            if len(known) > len(first):
                continued.add(axis)
        ended = {axis for axis in before if epochs(experiment)[axis] == EPOCHS}
        return set(before) <= continued | ended

    wait_for("the next epoch of every trial", all_went_on)
    # One that was at its end may have ended unseen.
    assert continued >= {axis for axis, known in before.items() if len(known) < EPOCHS - 4}

    output = cluster.exec("ray job logs --follow three", check=False)
    wait_for("the end", lambda: "RUNNING" not in cluster.exec("ray job status three"))
    assert "succeeded" in cluster.exec("ray job status three").lower(), output
    for axis in AXES:
        (row,) = read_leaderboard(experiment.leaderboard_csv(axis))
        assert (row.state, row.epochs_run) == ("COMPLETE", EPOCHS)
        assert set(reports(experiment, axis).values()) == {1}

    members = open_bundle(cluster.fetch(experiment.bundle_zip)).record.members
    assert set(members) == set(AXES)
    cluster.down()
    left = next(hosts[name] for name in ("first", "second") if hosts[name] is not killed)
    key = ("-o", "StrictHostKeyChecking=no", left.address)
    cluster.laptop.run("ssh", *key, "strokeseg/.venv/bin/ray stop")
    for host in (hosts["head"], left):
        assert host.run("pgrep", "--full", "raylet", check=False).returncode == 1
