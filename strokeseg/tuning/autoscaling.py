"""What a cluster may yet become: the nodes that its autoscaler would add for trials that wait.

A *worker* is any node but the head, a *node to come* a worker that the autoscaler may still start.
Ray tells nobody which these are: the question that it has for it finds an answer nowhere in open
source. But the *monitor*, the head's process in which the autoscaler runs, has the name of the
file that it goes by among its arguments, and that file names the types of nodes.

Three clusters keep theirs to themselves, so that a search reckons with the nodes that live when
it begins: those of KubeRay, whose autoscaler has a container of its own and asks Kubernetes; those
of `provider: local`, whose file does not know what its machines have; and heads without /proc.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from strokeseg.phrases import count
from strokeseg.tuning.allotment import Node, cluster_nodes

_log = logging.getLogger(__name__)

_HEAD = "node:__internal_head__"
_TYPE_LABEL = "ray.io/node-group"
_MONITORS = ("autoscaler/_private/monitor.py", "autoscaler/v2/monitor.py")
_SECONDS_BETWEEN_NOTES = 60.0


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """Workers that an autoscaler may start: what each has, and how many there may be at most."""

    name: str
    cpus: int
    gpus: float
    most: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far an autoscaler may go.

    Attributes:
        types: Of workers.
        most: Workers of all types at most.
    """

    types: tuple[NodeType, ...] = ()
    most: int = 0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker that lives; Ray's first autoscaler does not tell workers their type."""

    type_name: str | None
    cpus: int
    gpus: float


def reachable_nodes() -> list[Node]:
    """Return the nodes of the cluster joined, those that live and those to come."""
    living = cluster_nodes()
    coming = nodes_to_come(_limits(), _workers())
    if coming:
        _log.info(
            "autoscaling: %d nodes live, %d may come, with %g GPUs and %d CPUs",
            *(len(living), len(coming)),
            *(sum(node.gpus for node in coming), sum(node.cpus for node in coming)),
        )
    return living + coming


def nodes_to_come(limits: Limits, workers: Sequence[Worker]) -> list[Node]:
    """Return what an autoscaler may add to the workers that live.

    Where it may not have the most of every type at once, those with the most GPUs come first.
    """
    left = limits.most - len(workers)
    coming: list[Node] = []
    for kind in sorted(limits.types, key=lambda kind: (kind.gpus, kind.cpus), reverse=True):
        living = sum(_is_of(worker, kind) for worker in workers)
        more = max(0, min(kind.most - living, left))
        coming += [Node(cpus=kind.cpus, gpus=kind.gpus, to_come=True)] * more
        left -= more
    return coming


def _is_of(worker: Worker, kind: NodeType) -> bool:
    if worker.type_name is None:
        return (worker.cpus, worker.gpus) == (kind.cpus, kind.gpus)
    return worker.type_name == kind.name


def await_room(cpus: int, gpus: float, show: Callable[[str], None]) -> None:
    """Wait until a node with so much lives, and make the autoscaler start one.

    Nothing is waited for where one lives already, busy or not.
    """
    if any(node.cpus >= cpus and node.gpus >= gpus for node in cluster_nodes()):
        return
    wanted = f"a node with {'a GPU and ' if gpus else ''}{count(cpus, 'CPU')}"
    asked = ray.remote(_nothing).options(num_cpus=cpus, num_gpus=gpus).remote()
    minutes = 0
    while True:
        note = f"waiting for the cluster to start {wanted}"
        if minutes:
            note += f", for {count(minutes, 'minute')} so far; see ray status on the head"
        _log.info("%s", note)
        show(note)
        if ray.wait([asked], timeout=_SECONDS_BETWEEN_NOTES)[0]:
            ray.get(asked)
            return
        minutes += 1


def _nothing() -> None:
    """Hold what a task was given, for a moment."""


def _workers() -> list[Worker]:
    return [
        Worker(
            type_name=node["Labels"].get(_TYPE_LABEL),
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"] and _HEAD not in node["Resources"]
    ]


def _limits() -> Limits:
    """Ask the head how far its autoscaler may go; where there is none, it may go nowhere."""
    context = ray.get_runtime_context()
    session = context.get_session_name()
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"]]
    if context.get_node_id() in heads:
        return limits_of_monitor(session)
    if not heads:
        return Limits()
    there = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    task = ray.remote(limits_of_monitor).options(num_cpus=0, scheduling_strategy=there)
    found: Limits = ray.get(task.remote(session))
    return found


def limits_of_monitor(session: str) -> Limits:
    """Return how far the autoscaler on this machine may go that serves a cluster.

    Args:
        session: Ray's name for the cluster.
    """
    for process in Path("/proc").glob("[0-9]*"):
        # Processes end while they are looked at.
        with suppress(OSError):
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if name := _file_of_monitor(arguments, session):
                return _read(process / "cwd" / os.path.expanduser(name))
    return Limits()


def _file_of_monitor(arguments: Sequence[str], session: str) -> str | None:
    if not any(argument.endswith(_MONITORS) for argument in arguments):
        return None
    options = dict(argument.partition("=")[::2] for argument in arguments)
    if Path(options.get("--logs-dir", "")).parent.name != session:
        return None
    return options.get("--autoscaling-config")


def _read(path: Path) -> Limits:
    try:
        return limits_in(yaml.safe_load(path.read_text(encoding="utf-8")))
    # The file is Ray's to check: whatever is wrong with it, what lives is still there.
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        _log.warning(
            "autoscaling: cannot read %s, by which the autoscaler goes (%s); reckoning with the "
            "nodes that live",
            *(path, " ".join(str(error).split())),
        )
        return Limits()


def limits_in(config: Mapping[str, Any]) -> Limits:
    """Return how far an autoscaler may go by its file, as `ray up` has filled it in.

    Types whose CPUs and GPUs the file does not say count for nothing.
    """
    most = int(config.get("max_workers") or 0)
    head = config.get("head_node_type")
    types = []
    for name, kind in config.get("available_node_types", {}).items():
        resources = kind.get("resources") or {}
        cpus, gpus = int(resources.get("CPU", 0)), float(resources.get("GPU", 0))
        # Ray's own rule: as many as of all types together, but no second head.
        of_type = int(kind.get("max_workers", 0 if name == head else most))
        if cpus or gpus:
            types.append(NodeType(name=name, cpus=cpus, gpus=gpus, most=of_type))
    return Limits(types=tuple(types), most=most)
