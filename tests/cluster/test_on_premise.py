"""A cluster of three hosts over ssh: launched, searched on, struck, brought home and taken down."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from strokeseg.experiment import Experiment, open_experiment
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import read_leaderboard
from strokeseg.learning.bundle import open_bundle
from hosts import Host, hosts_on_a_switch, missing

_FILE = Path(__file__).resolve().parents[2] / "cluster" / "on-premise.yaml"
_NODES = ("head", "first", "second")
_PATIENCE_SECONDS = 400.0
TRIALS, EPOCHS = 4, 25
EXPERIMENT = f"""\
data: {{phantom: {{cases: 6, spacing_mm: 6.0}}}}
splits: {{folds: 2, test_share: 0.0}}
search:
  {{space: space.yaml, trials: {TRIALS}, epochs: {EPOCHS}, grace_epochs: {EPOCHS},
   slices_per_epoch: 16, confirm_trials: 0, transfer_trials: 0}}
ensemble: {{candidates_per_axis: 1}}
"""
SPACE = """\
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {value: 8}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
"""


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


class Cluster:
    """What the head of the launch file says to type on the laptop, typed."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self.laptop = hosts["laptop"]
        text = _FILE.read_text()
        for number, name in enumerate(_NODES, start=1):
            text = text.replace(f"10.0.0.{number}", hosts[name].address)
        self.file = self.laptop.home / _FILE.name
        self.file.write_text(text.replace("ssh_user: researcher", "ssh_user: root"))

    def up(self) -> None:
        self.laptop.run("ray", "get-auth-token", "--generate")
        up = ("ray", "up", "--yes", "--no-config-cache", str(self.file))
        self.laptop.run(*up, RAY_UP_enable_autoscaler_v2="0")

    def exec(self, command: str, *, check: bool = True) -> str:
        return self.laptop.run("ray", "exec", str(self.file), command, check=check).stdout

    def watch(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.laptop.command(["ray", "exec", str(self.file), command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def down(self) -> None:
        self.laptop.run("ray", "down", "--yes", str(self.file))


def wait_for(what: str, done: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.5)


def reports(experiment: Experiment) -> Counter[tuple[int, int]]:
    """How often each epoch of each trial was reported to the journal of the axial search."""
    found: Counter[tuple[int, int]] = Counter()
    with suppress(FileNotFoundError):
        for line in experiment.journal("axial").read_text().splitlines():
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if "intermediate_value" in entry:
                    found[entry["trial_id"], entry["step"]] += 1
    return found


def two_epochs(experiment: Experiment) -> int:
    """How many trials have reported two epochs or more."""
    return sum(count > 1 for count in Counter(trial for trial, _ in reports(experiment)).values())


def trains(host: Host) -> bool:
    return host.run("pgrep", "--full", "ray::ImplicitFunc", check=False).returncode == 0


@pytest.mark.slow
def test_a_search_over_three_hosts_outlives_one_of_them(hosts: dict[str, Host]) -> None:
    cluster = Cluster(hosts)
    shared = cluster.laptop.home.parent / "shared"
    config = shared / "three" / "experiment.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(EXPERIMENT)
    (config.parent / "space.yaml").write_text(SPACE)
    experiment = open_experiment(str(config), str(shared / "runs"))
    cluster.up()
    wait_for(
        "the workers",
        lambda: re.search(r"\b3 local\.cluster\.node", cluster.exec("ray status")),
    )

    strangers = hosts["head"].run(
        *("ray", "job", "list", "--address", "http://127.0.0.1:8265"),
        check=False,
        HOME=str(hosts["laptop"].home / "strokeseg"),
        RAY_AUTH_MODE="disabled",
    )
    assert strangers.returncode != 0
    assert "oken" in strangers.stdout

    run = f"strokeseg run --experiment {config} --storage {shared / 'runs'} --on validation"
    watching = cluster.watch(f"ray job submit --submission-id three -- {run}")
    wait_for("every trial's second epoch", lambda: two_epochs(experiment) == TRIALS)
    watching.send_signal(signal.SIGINT)
    watching.wait(60)
    assert "RUNNING" in cluster.exec("ray job status three")

    struck = next(host for name in ("first", "second") if trains(host := hosts[name]))
    assert len(reports(experiment)) < TRIALS * EPOCHS
    struck.kill()

    said = cluster.exec("ray job logs --follow three", check=False)
    wait_for("the end", lambda: "RUNNING" not in cluster.exec("ray job status three"))
    assert "SUCCEEDED" in cluster.exec("ray job status three"), said
    rows = read_leaderboard(experiment.leaderboard_csv("axial"))
    assert [(row.state, row.epochs_run) for row in rows] == [("complete", EPOCHS)] * TRIALS
    # Gone on with, not begun anew.
    assert set(reports(experiment).values()) == {1}

    cluster.laptop.run(
        *("ray", "rsync-down", str(cluster.file), str(experiment.bundle_zip), "bundle.zip")
    )
    members = open_bundle(cluster.laptop.home / "bundle.zip").record.members
    assert set(members) == set(AXES)
    cluster.down()
    left = next(hosts[name] for name in ("first", "second") if hosts[name] is not struck)
    key = ("-o", "StrictHostKeyChecking=no", left.address)
    cluster.laptop.run("ssh", *key, "strokeseg/.venv/bin/ray stop")
    for host in (hosts["head"], left):
        assert host.run("pgrep", "--full", "raylet", check=False).returncode == 1
