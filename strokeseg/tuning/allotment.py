"""Who gets what: a cluster's CPUs and GPUs divided among the trials of a study.

A *worker* is one process of a trial. Most trials have one; several share a trial whose GPUs are
more than one, each with a GPU of its own, on one node or on several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from strokeseg.errors import UserError

# Three workers of a third of a GPU fill it, though 3 * 0.33 is less and 1 / 0.1 not quite 10.
_ROUNDING = 1e-6
_MOST_GPUS = 10_000


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node has, or will have where it is only to come (`autoscaling`)."""

    cpus: int
    gpus: float = 0.0
    object_store_bytes: float = 0.0
    to_come: bool = False


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """What a trial gets, and how many run at once.

    Attributes:
        cpus: CPUs, and threads, of a worker.
        gpus: GPUs of a worker: one, a fraction of one, or none.
        concurrent: Trials at once.
        workers: Workers of a trial.
    """

    cpus: int
    gpus: float
    concurrent: int
    workers: int = 1

    @property
    def devices(self) -> float:
        """GPUs of a trial, or its CPUs where it has none."""
        return self.workers * (self.gpus or self.cpus)


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


def allot(
    nodes: Sequence[Node],
    trials: int,
    gpus_per_trial: float | None,
    workers_per_trial: int | None = None,
) -> Allotment:
    """Divide a cluster among the trials that are still to run.

    Without GPUs, one-thread trials side by side do more than one trial of many threads, so
    trials get more than one CPU only when there are more CPUs than trials.

    Args:
        nodes: What the cluster has, or may yet have.
        trials: Trials to run.
        gpus_per_trial: As asked for; nothing for one, or for none where there are none.
        workers_per_trial: As asked for; nothing for one a GPU.

    Raises:
        UserError: When the cluster does not have what a trial asks for.
    """
    gpus = sum(node.gpus for node in nodes)
    wanted = gpus_per_trial if gpus_per_trial is not None else min(1.0, gpus)
    workers = _workers(wanted, workers_per_trial)
    share = wanted / workers
    slots = [_slots(node, share) for node in nodes]
    if sum(slots) < workers:
        raise UserError(_refusal(nodes, wanted, workers, sum(slots)))
    concurrent = max(1, min(sum(slots) // workers, trials))
    for cpus in range(max(node.cpus for node in nodes), 0, -1):
        places = sum(min(slot, node.cpus // cpus) for node, slot in zip(nodes, slots, strict=True))
        if places >= concurrent * workers:
            break
    return Allotment(cpus=cpus, gpus=share, concurrent=concurrent, workers=workers)


def _workers(gpus: float, asked: int | None) -> int:
    # Written so that NaN is refused as well.
    if not (0 <= gpus <= 1 or (1 < gpus < _MOST_GPUS and gpus == int(gpus))):
        raise UserError(
            f"--gpus-per-trial {gpus:g}: must be from 0 to 1, or a whole number of GPUs"
        )
    workers = max(1, int(gpus)) if asked is None else asked
    if workers < 1 or (gpus > 0 and workers != max(1, int(gpus))):
        raise UserError(
            f"--workers-per-trial {workers}: must be 1 or more, and with GPUs one for each "
            f"({gpus:g} a trial); leave it out"
        )
    return workers


def _slots(node: Node, share: float) -> int:
    """How many workers a node has room for, each with a CPU at least."""
    if share == 0:
        return node.cpus
    # A fraction lies on one GPU: two of 0.4 fit on each, whatever is left over.
    if share < 1:
        return min(node.cpus, int(node.gpus + _ROUNDING) * int(1 / share + _ROUNDING))
    return min(node.cpus, int(node.gpus + _ROUNDING))


def _refusal(nodes: Sequence[Node], gpus: float, workers: int, slots: int) -> str:
    has_cpus, has_gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    verb = "has or may yet start" if any(node.to_come for node in nodes) else "has"
    has = f"the cluster {verb} {has_gpus:g} GPUs and {has_cpus} CPUs"
    if has_cpus < 1:
        return f"{has}, too few for a trial; add a node"
    if gpus == 0:
        return f"--workers-per-trial {workers}: {has}, room for {slots} workers of a CPU each"
    fits = f"at most {slots} fit, with a CPU each" if slots else "none fits"
    remedy = "ask for that" if slots else "ask for 0 to train on CPUs"
    return f"--gpus-per-trial {gpus:g}: {has}, {fits}; {remedy}"
