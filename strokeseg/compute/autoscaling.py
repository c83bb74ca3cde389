"""Clusters that grow: a search waits for their first node, and one trial for the next.

Ray's *autoscaler* starts nodes for what waits and ends those that idle. It tells nobody how far it
may go, only what it can never meet. So a search asks for one trial's room where no node that lives
has it, and runs one trial more than find room, which waits: for that the autoscaler starts the next
node.

Ray's first autoscaler, which `RAY_UP_enable_autoscaler_v2=0` chooses, says not even that: with it,
as on a cluster without any, a search reckons with the nodes that live when it begins.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import ray

# Ray prints this state, and has no public way to read it.
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import AutoscalingState, GetClusterStatusReply

from strokeseg.compute.allotment import Node, cluster_nodes
from strokeseg.errors import UserError
from strokeseg.records.phrases import count

_log = logging.getLogger(__name__)

_LOOKS_A_MINUTE = 6
_SECONDS_TO_ANSWER = 10


def may_grow() -> bool:
    """Whether the cluster that this process is connected to has an autoscaler that says so."""
    return bool(_state().autoscaler_state_version)


def await_node(gpus: float, show: Callable[[str], None]) -> list[Node]:
    """Return the nodes that live, once one of them has room for a trial, busy or not.

    Where none has and the cluster cannot grow, those that live are returned as they are.

    Args:
        gpus: GPUs of a trial.
        show: Called with what is waited for, every minute.

    Raises:
        UserError: When the autoscaler can never start such a node.
    """
    nodes = cluster_nodes()
    if any(node.cpus >= 1 and node.gpus >= gpus for node in nodes) or not may_grow():
        return nodes
    wanted = f"{f'{gpus:g} GPU and ' if gpus else ''}1 CPU"
    requested = ray.remote(_nothing).options(num_cpus=1, num_gpus=gpus).remote()
    for look in itertools.count():
        if look % _LOOKS_A_MINUTE == 0:
            note = f"waiting for the cluster to start a node with {wanted}"
            if minutes := look // _LOOKS_A_MINUTE:
                note += f", for {count(minutes, 'minute')} so far; see ray status on the head"
            _log.info("%s", note)
            show(note)
        if ray.wait([requested], timeout=60 / _LOOKS_A_MINUTE)[0]:
            ray.get(requested)
            break
        if _can_never_start(gpus):
            ray.cancel(requested)
            raise UserError(
                f"the cluster has no node with {wanted}, and its autoscaler can start none; ask "
                "for less with --gpus-per-trial, or change the cluster's launch file"
            )
    return cluster_nodes()


def _nothing() -> None:
    """Hold what a task was given, for a moment."""


def _can_never_start(gpus: float) -> bool:
    return any(
        one.resources_bundle.get("CPU") == 1 and one.resources_bundle.get("GPU", 0) == gpus
        for one in _state().infeasible_resource_requests
    )


def _state() -> AutoscalingState:
    """Return the autoscaler's last status; an empty state where there is none."""
    client = GcsClient(ray.get_runtime_context().gcs_address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=_SECONDS_TO_ANSWER))
    return reply.autoscaling_state
