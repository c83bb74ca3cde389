"""Searches side by side on nodes of several GPUs get what they ask for, and no GPU twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from strokeseg.process.temporary_folder import temporary_folder

ROOT = Path(__file__).resolve().parents[2]
NODES, GPUS = 3, 2
# GPUs a trial, trials at once, trials; 4 + 2 / 2 + 4 / 4 are all 6 GPUs.
SEARCHES = {"whole": (1.0, 4, 6), "half": (0.5, 2, 4), "quarter": (0.25, 4, 6)}

# One search of instant trials, on GPUs that are mere numbers. A trial notes which GPU it has, of
# which node, and how long; the first ones wait until they are let go.
SEARCH = """
import json, sys, time
from dataclasses import replace
from pathlib import Path

import optuna, ray
from ray import tune
from benchmarks.overhead import our_study
from benchmarks.stand_in import metrics_of
from strokeseg.compute.allotment import Node, allot
from strokeseg.tuning.running import _fit

def wait_for(path):
    while not path.exists():
        time.sleep(0.05)

def place():
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_accelerator_ids()["GPU"]

def stand_in(proposal, *, folder, allotment):
    note = {"place": place(), "share": allotment.gpus, "began": time.time()}
    path = folder / "held" / f"{folder.name}-{proposal['number']}"
    part = folder / path.name
    for moment in ("began", "ended"):
        note[moment] = time.time()
        part.write_text(json.dumps(note))
        part.rename(path)
        wait_for(folder.parent / "go")
    for epoch in (1, 2):
        tune.report(metrics_of(epoch))

optuna.logging.set_verbosity(optuna.logging.ERROR)
folder, address, gpus, concurrent, trials, nodes, gpus_a_node = Path(sys.argv[1]), *sys.argv[2:]
(folder / "held").mkdir(parents=True)
ray.init(address, log_to_driver=False)
with our_study(folder, int(trials), 2) as (ledger, searcher, monitor, experiment):
    cluster = [Node(cpus=16, gpus=int(gpus_a_node))] * int(nodes)
    allotment = replace(
        allot(cluster, int(trials), float(gpus)), cpus=1, concurrent=int(concurrent)
    )
    bundle = {"CPU": allotment.cpus, "GPU": allotment.gpus}
    trainable = tune.with_resources(
        tune.with_parameters(stand_in, folder=folder, allotment=allotment),
        tune.PlacementGroupFactory([bundle]),
    )
    wait_for(folder.with_suffix(".start"))
    scratch = experiment.search_folder("axial") / "tune"
    _fit(trainable, {"axial": ledger}, searcher, monitor, allotment, [scratch])
    states = [row.state for row in ledger.rows()]
folder.with_suffix(".states").write_text(json.dumps(states))
"""

# The cluster, which begins as one node; the searches begin one after the other, each when all
# first trials of the one before have what they asked for.
CLUSTER = """
import json, subprocess, sys, time
from collections import Counter
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

folder, search, nodes, gpus, *searches = sys.argv[1:]
folder, searches = Path(folder), json.loads(searches[0])
cluster = Cluster()

def add_node():
    cluster.add_node(
        num_cpus=16, num_gpus=int(gpus), include_dashboard=False, object_store_memory=80_000_000
    )

def await_groups(**wanted):
    end = time.monotonic() + 120
    while (has := Counter(each["state"] for each in placement_group_table().values())) != wanted:
        if time.monotonic() > end or any(driver.poll() for driver in drivers):
            raise SystemExit(f"wanted {wanted} trials, got {has}")
        time.sleep(0.1)

def await_notes(count):
    end = time.monotonic() + 120
    while (has := len(list(folder.glob("*/held/*")))) < count:
        if time.monotonic() > end or any(driver.poll() for driver in drivers):
            raise SystemExit(f"wanted {count} trials to hold GPUs, got {has}")
        time.sleep(0.1)
    assert has == count

add_node()
ray.init(cluster.address, log_to_driver=False)
drivers = [
    subprocess.Popen(
        [sys.executable, "-c", search, folder / name, cluster.address, *map(str, how), nodes, gpus],
        stdout=sys.stderr,
    )
    for name, how in searches.items()
]
moments = {}
count = 0
for name, (a_trial, at_once, _) in searches.items():
    (folder / f"{name}.start").touch()
    if not count:
        room = int(int(gpus) // a_trial)
        await_groups(CREATED=room, PENDING=at_once - room)
        await_notes(room)
        moments["second node"] = time.time()
        for _ in range(int(nodes) - 1):
            add_node()
    count += at_once
    await_notes(count)
moments["go"] = time.time()
(folder / "go").touch()
codes = [driver.wait() for driver in drivers]
print(json.dumps({"moments": moments, "codes": codes}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_trials_of_all_sizes_wait_for_gpus_and_never_share_more_than_one() -> None:
    with temporary_folder(Path("/tmp"), "ssb-") as folder:
        command = [sys.executable, "-c", CLUSTER, folder, SEARCH, NODES, GPUS, json.dumps(SEARCHES)]
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_TMPDIR": str(folder),
                "RAY_AUTH_MODE": "disabled",
                # A process for each CPU of each node, otherwise.
                "RAY_enable_worker_prestart": "0",
                "RAY_prestart_worker_first_driver": "0",
            },
        )
        assert done.returncode == 0, done.stderr[-4000:]
        report = json.loads(done.stdout.splitlines()[-1])
        notes = {path.name: json.loads(path.read_text()) for path in folder.glob("*/held/*")}
        states = {name: json.loads((folder / f"{name}.states").read_text()) for name in SEARCHES}
    assert report["codes"] == [0] * len(SEARCHES)
    for name, (_, _, trials) in SEARCHES.items():
        assert states[name] == ["COMPLETE"] * trials
    assert len(notes) == sum(trials for _, _, trials in SEARCHES.values())
    # Two fit the first node, the others waited for the next ones.
    second = report["moments"]["second node"]
    began = sorted(notes[f"whole-{number}"]["began"] for number in range(SEARCHES["whole"][1]))
    assert [moment > second for moment in began] == [False] * 2 + [True] * 2
    used = use_by_gpu(list(notes.values()))
    assert len(used) == NODES * GPUS
    for uses in used.values():
        assert max(accumulate(share for _, share in sorted(uses))) <= 1
    # When all the first trials were there, so were they on all GPUs.
    go = report["moments"]["go"]
    assert {sum(share for at, share in uses if at < go) for uses in used.values()} == {1.0}


def use_by_gpu(notes: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return, for each GPU, when its use changed and by how much."""
    used = defaultdict(list)
    for note in notes:
        node, (gpu,) = note["place"]
        used[node, gpu] += [(note["began"], note["share"]), (note["ended"], -note["share"])]
    return used
