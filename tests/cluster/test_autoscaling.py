"""A search on a head without GPUs makes an autoscaler start nodes that have them, and end them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from strokeseg.process.temporary_folder import temporary_folder

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
NODES, GPUS = 2, 2

# Ray's fake provider starts the nodes of a cluster on this machine; their GPUs are mere numbers.
CLUSTER = {
    "cluster_name": "fake",
    "max_workers": NODES + 3,
    "idle_timeout_minutes": 0.1,
    "upscaling_speed": 100,
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "cluster_synced_files": [],
    "provider": {
        # As `type: fake_multinode`, whose defaults Ray's wheels lack.
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        # The provider knows a head by this name only.
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": GPUS, "GPU": GPUS, "object_store_memory": 100_000_000},
            "node_config": {},
            "max_workers": NODES,
        },
    },
}

# What goes on in the namespaces: a head, and on it a search whose first trials end only when as
# many as both nodes have GPUs hold them at once.
SEARCH = """
import json, os, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
folder, (trials, nodes, gpus_a_node) = Path(sys.argv[1]), map(int, sys.argv[2:])
start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0"]
start += ["--include-dashboard=false", "--object-store-memory=100000000"]
start += [f"--autoscaling-config={folder / 'cluster.json'}"]
subprocess.run(start, check=True, stdout=sys.stderr)

import optuna, ray
from ray import tune
from benchmarks.overhead import our_study
from benchmarks.stand_in import metrics_of
from strokeseg.compute.allotment import cluster_nodes
from strokeseg.errors import UserError
from strokeseg.compute.autoscaling import await_node, may_grow
from strokeseg.tuning.running import _allotment, _fit

def stand_in(proposal, *, held, together):
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids()["GPU"]
    found = json.dumps([context.get_node_id(), gpus])
    part = held / f".{proposal['number']}"
    part.write_text(found)
    part.rename(held / str(proposal["number"]))
    while len(list(held.glob("[0-9]*"))) < together:
        time.sleep(0.05)
    for epoch in (1, 2):
        tune.report(metrics_of(epoch))

def cluster_gpus():
    return [node.gpus for node in cluster_nodes()]

optuna.logging.set_verbosity(optuna.logging.ERROR)
ray.init("127.0.0.1:6379", log_to_driver=False)
found = {"before": cluster_gpus()}
while not may_grow():
    time.sleep(0.2)
try:
    await_node(1 + gpus_a_node, lambda note: None)
except UserError as error:
    found["never"] = str(error)
held = folder / "held"
held.mkdir()
notes = []
with our_study(folder, trials, 2) as (ledger, searcher, monitor, experiment):
    studies = {"axial": SimpleNamespace(ledger=ledger)}
    allotment = _allotment(studies, None, 1.0, one_at_a_time=False, show=notes.append)
    found["first"] = cluster_gpus()
    trainable = tune.with_resources(
        tune.with_parameters(stand_in, held=held, together=nodes * gpus_a_node),
        tune.PlacementGroupFactory([{"CPU": allotment.cpus, "GPU": allotment.gpus}]),
    )
    scratch = experiment.search_folder("axial") / "tune"
    _fit(trainable, {"axial": ledger}, searcher, monitor, allotment, [scratch])
    found["most"] = cluster_gpus()
    monitor.tidy()
    found["states"] = [row.state for row in ledger.rows()]
found |= {"notes": notes, "allotment": vars(allotment)}
found["held"] = [json.loads((held / str(number)).read_text()) for number in range(trials)]
end = time.monotonic() + 60
while len(cluster_gpus()) > 1 and time.monotonic() < end:
    time.sleep(0.2)
found["after"] = cluster_gpus()
print(json.dumps(found), flush=True)
ray.shutdown()
"""


@pytest.mark.slow
def test_workers_with_gpus_come_for_a_search_and_go_after_it() -> None:
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command to set up a network with")
    trials = NODES * GPUS + 2
    numbers = [str(number) for number in (trials, NODES, GPUS)]
    with temporary_folder(Path("/tmp"), "ssa-") as folder:
        (folder / "cluster.json").write_text(json.dumps(CLUSTER))
        done = subprocess.run(
            [*NAMESPACES, sys.executable, "-c", SEARCH, str(folder), *numbers],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_TMPDIR": str(folder),
                "RAY_AUTH_MODE": "disabled",
                "RAY_FAKE_CLUSTER": "1",
                "RAY_enable_autoscaler_v2": "1",
                "RAY_CLOUD_INSTANCE_ID": "f" * 51 + "0" * 5,
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            },
        )
    assert done.returncode == 0, done.stderr[-4000:]
    # Before it come words of Ray.
    found = json.loads(done.stdout.splitlines()[-1])
    # Living nodes in any order, by their GPUs: first the head, which has none.
    assert found["before"] == [0]
    assert "no node with 3 GPU and 1 CPU, and its autoscaler can start none" in found["never"]
    # As many at once as find room, and one that waits.
    assert found["allotment"] == {"cpus": 1, "gpus": 1, "concurrent": None}
    assert found["notes"] == ["waiting for the cluster to start a node with 1 GPU and 1 CPU"]
    assert sorted(found["first"]) == [0, GPUS]
    assert sorted(found["most"]) == [0, *[GPUS] * NODES]
    assert found["states"] == ["COMPLETE"] * trials
    # The first trials ended only when all of them had started: each with a GPU of its own.
    places = {(node, gpu) for node, (gpu,) in found["held"]}
    assert len(places) == NODES * GPUS
    assert len({node for node, _ in places}) == NODES
    assert found["after"] == [0]
