"""Who gets what: a cluster's CPUs and GPUs divided among the trials of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from strokeseg.errors import UserError

# Three trials of a third of a GPU fill it, though 3 * 0.33 is less and 1 / 0.1 not quite 10.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node has."""

    cpus: int
    gpus: float = 0.0
    object_store_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """What a trial gets, and how many run at once.

    Attributes:
        cpus: CPUs, and threads, of a trial.
        gpus: GPUs of a trial: one, a fraction of one, or none.
        concurrent: Trials at once; None for as many as find room, and one that waits.
    """

    cpus: int
    gpus: float
    concurrent: int | None

    @property
    def devices(self) -> float:
        """GPUs of a trial, or its CPUs where it has none."""
        return self.gpus or self.cpus


def cluster_nodes() -> list[Node]:
    """Return the nodes that live in the cluster that this process is connected to."""
    return [
        Node(
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=node["Resources"].get("GPU", 0.0),
            object_store_bytes=node["Resources"].get("object_store_memory", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def allot(nodes: Sequence[Node], trials: int, gpus_per_trial: float | None) -> Allotment:
    """Divide a cluster among the trials that are still to run.

    Without GPUs, one-thread trials side by side do more than one trial of many threads, so
    trials get more than one CPU only when there are more CPUs than trials.

    Args:
        nodes: What the cluster has.
        gpus_per_trial: As asked for, 0 to 1; None for one, or for none where there are none.

    Raises:
        UserError: When the cluster does not have what a trial asks for.
    """
    gpus = sum(node.gpus for node in nodes)
    wanted = gpus_per_trial if gpus_per_trial is not None else min(1.0, gpus)
    slots = [_slots(node, wanted) for node in nodes]
    if not any(slots):
        raise UserError(_refusal(nodes, wanted))
    concurrent = max(1, min(sum(slots), trials))
    for cpus in range(max(node.cpus for node in nodes), 0, -1):
        places = sum(min(slot, node.cpus // cpus) for node, slot in zip(nodes, slots, strict=True))
        if places >= concurrent:
            break
    return Allotment(cpus=cpus, gpus=wanted, concurrent=concurrent)


def _slots(node: Node, share: float) -> int:
    """How many trials a node has room for, each with a CPU at least."""
    if share == 0:
        return node.cpus
    # A fraction lies on one GPU: two of 0.4 fit on each, whatever is left over.
    if share < 1:
        return min(node.cpus, int(node.gpus + _ROUNDING) * int(1 / share + _ROUNDING))
    return min(node.cpus, int(node.gpus + _ROUNDING))


def _refusal(nodes: Sequence[Node], gpus: float) -> str:
    has_cpus, has_gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    has = f"the cluster has {has_gpus:g} GPUs and {has_cpus} CPUs"
    if has_cpus < 1:
        return f"{has}, too few for a trial; add a node"
    return f"--gpus-per-trial {gpus:g}: {has}, none fits; ask for 0 to train on CPUs"
