"""What an autoscaler may add is read from its file, which its process on the head names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strokeseg.tuning.allotment import Node, cluster_nodes
from strokeseg.tuning.autoscaling import (
    Limits,
    NodeType,
    Worker,
    await_room,
    limits_in,
    limits_of_monitor,
    nodes_to_come,
    reachable_nodes,
)

CLUSTER = Path(__file__).resolve().parents[2] / "cluster" / "config.yaml"
SPOT = NodeType(name="spot", cpus=48, gpus=4, most=4)
ON_DEMAND = NodeType(name="on-demand", cpus=48, gpus=4, most=4)
SMALL = NodeType(name="small", cpus=64, gpus=1, most=3)
CPUS = NodeType(name="cpus", cpus=96, gpus=0, most=9)


def lives(kind: NodeType, *, labelled: bool = True) -> Worker:
    return Worker(type_name=kind.name if labelled else None, cpus=kind.cpus, gpus=kind.gpus)


@pytest.mark.parametrize(
    ("types", "most", "workers", "gpus"),
    [
        pytest.param([], 0, [], [], id="no autoscaler"),
        pytest.param([SPOT], 0, [], [], id="none may"),
        pytest.param([SPOT], 4, [], [4, 4, 4, 4], id="none lives"),
        pytest.param([SPOT], 9, [lives(SPOT)] * 3, [4], id="the type's own limit"),
        pytest.param([SPOT], 4, [lives(SPOT)] * 3, [4], id="the limit of all"),
        pytest.param([SPOT, ON_DEMAND], 4, [lives(ON_DEMAND)], [4, 4, 4], id="another type lives"),
        pytest.param([CPUS, SMALL, SPOT], 6, [], [4, 4, 4, 4, 1, 1], id="most GPUs first"),
        pytest.param([SPOT], 3, [lives(CPUS)] * 5, [], id="more live than may"),
        # Ray's first autoscaler leaves its workers without a label.
        pytest.param([SPOT], 9, [lives(SPOT, labelled=False)] * 3, [4], id="no label"),
        pytest.param([SPOT], 9, [lives(SMALL, labelled=False)], [4] * 4, id="of another size"),
    ],
)
def test_what_may_come_is_what_the_limits_leave(
    types: list[NodeType], most: int, workers: list[Worker], gpus: list[float]
) -> None:
    coming = nodes_to_come(Limits(types=tuple(types), most=most), workers)
    assert [node.gpus for node in coming] == gpus
    assert all(node.to_come for node in coming)


def test_the_cloud_file_may_have_four_workers_of_four_gpus() -> None:
    coming = nodes_to_come(limits_in(yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))), [])
    assert coming == [Node(cpus=48, gpus=4, to_come=True)] * 4


@pytest.mark.parametrize(
    ("types", "most"),
    [
        pytest.param({"head": {"resources": {"CPU": 4}}}, {"head": 0}, id="no second head"),
        pytest.param({"w": {"resources": {"CPU": 4}}}, {"w": 5}, id="as many as of all types"),
        pytest.param({"w": {"resources": {"GPU": 1}, "max_workers": 2}}, {"w": 2}, id="its own"),
        pytest.param({"local.cluster.node": {"resources": {}}}, {}, id="machines of unknown size"),
    ],
)
def test_types_are_read_as_ray_reads_them(types: dict[str, Any], most: dict[str, int]) -> None:
    config = {"max_workers": 5, "head_node_type": "head", "available_node_types": types}
    assert {kind.name: kind.most for kind in limits_in(config).types} == most


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[None]:
    """A process that looks like the one of Ray's autoscaler, for a cluster of its own."""
    types = {"w": {"resources": {"CPU": 8, "GPU": 2}}}
    (tmp_path / "cluster.yaml").write_text(
        yaml.safe_dump({"max_workers": 3, "available_node_types": types})
    )
    script = tmp_path / "autoscaler" / "v2" / "monitor.py"
    script.parent.mkdir(parents=True)
    script.write_text("import time\nprint(flush=True)\ntime.sleep(600)\n")
    arguments = ["--logs-dir=/tmp/ray/session_1/logs", "--autoscaling-config=cluster.yaml"]
    with subprocess.Popen(
        [sys.executable, str(script), *arguments], cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc here")
@pytest.mark.usefixtures("monitor")
def test_the_file_is_found_by_the_process_that_serves_the_cluster(tmp_path: Path) -> None:
    expected = Limits(types=(NodeType(name="w", cpus=8, gpus=2, most=3),), most=3)
    assert limits_of_monitor("session_1") == expected
    assert limits_of_monitor("session_2") == Limits()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc here")
@pytest.mark.usefixtures("monitor")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="gone"),
        pytest.param("", id="empty"),
        pytest.param("{", id="no YAML"),
        pytest.param("max_workers: many", id="no number"),
        pytest.param("available_node_types: [gpu]", id="no mapping"),
    ],
)
def test_a_file_that_cannot_be_read_adds_no_nodes_and_is_named(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cluster.yaml"
    file.unlink() if text is None else file.write_text(text)
    assert limits_of_monitor("session_1") == Limits()
    (message,) = caplog.messages
    assert "cluster.yaml" in message
    assert "\n" not in message


@pytest.mark.usefixtures("local_ray")
def test_a_cluster_without_an_autoscaler_has_what_lives_and_waits_for_nothing() -> None:
    assert reachable_nodes() == cluster_nodes()
    notes: list[str] = []
    await_room(2, 0, notes.append)
    assert notes == []
