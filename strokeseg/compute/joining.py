"""What must hold before a command joins a Ray cluster that runs already.

An *address* is HOST:PORT of the cluster's head, or `auto` for the cluster that runs on this
machine. A cluster that cannot be joined is reported within seconds, where Ray itself would try for
minutes. Once joined, one small task on every node tells whether the node runs what this process
runs, and whether it sees the folders that the command's tasks will write to and read from: what
would fail in the midst of a search is an error before anything starts.
"""

from __future__ import annotations

import platform
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private import services
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import strokeseg
from strokeseg.errors import UserError
from strokeseg.storage.remote_copy import is_working_copy

AUTO = "auto"
# Ray compares versions itself, but in many lines and not torch's, nor ours.
_COMPARED = ("Python", "ray", "torch", "strokeseg")
_SECONDS_TO_ANSWER = 5
_SECONDS_OF_A_TASK = 60
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node has to say.

    Attributes:
        versions: By the name of what has them; a package that is not there has none.
        unseen: Folders that are not there.
        unwritable: The storage folder, if the node may not write to it.
    """

    versions: Mapping[str, str]
    unseen: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()


def own_versions() -> dict[str, str]:
    """Return the versions that every node must have."""
    packages = {name: version(name) for name in ("ray", "torch")}
    return {"Python": platform.python_version(), **packages, "strokeseg": strokeseg.__version__}


def find_cluster(address: str) -> str:
    """Return HOST:PORT of a cluster that answers and has a node on this machine.

    Raises:
        UserError: When there is no such cluster, or it asks for a token that is not here.
    """
    host_and_port = _only_cluster_here() if address == AUTO else _resolved(address)
    # Ray does so, too, when it connects: a token in the home folder is used where there is one.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(init_grpc_channel(host_and_port))
        head = stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_SECONDS_TO_ANSWER)
        nodes = stub.GetAllNodeInfo(
            gcs_service_pb2.GetAllNodeInfoRequest(), timeout=_SECONDS_TO_ANSWER
        ).node_info_list
    except AuthenticationError:
        raise _lacks_token(address) from None
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise _lacks_token(address) from None
        raise UserError(
            f"{_named(address)}: no Ray answers there ({_reason(error)}); name the head's address "
            f"and the port that it was started with (usually 6379), or {_alone()}"
        ) from None
    if head.ray_version != ray.__version__:
        raise UserError(
            f"{_named(address)}: the cluster has ray {head.ray_version}, wanted {ray.__version__} "
            "as here; install one version on all nodes and start the cluster again"
        )
    alive = {node.node_id.hex() for node in nodes if node.state == gcs_pb2.GcsNodeInfo.ALIVE}
    if not alive.intersection(services.find_node_ids()):
        raise UserError(
            f"{_named(address)}: this machine is not one of the cluster's nodes; run the command "
            "on one of them (ray job submit, ray submit), or join it with ray start --address"
        )
    return host_and_port


def _only_cluster_here() -> str:
    found = sorted(services.find_gcs_addresses())
    if len(found) != 1:
        has = f"several Ray clusters run on this machine ({', '.join(found)})" if found else ""
        raise UserError(
            f"{_named(AUTO)}: {has or 'no Ray cluster runs on this machine'}; name one as "
            f"HOST:PORT, or {_alone()}"
        )
    return str(found[0])


def _resolved(address: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", address):
        raise UserError(
            f"{_named(address)}: must be HOST:PORT of the cluster's head, with the port that it "
            f"was started with (usually 6379), or {AUTO}"
        )
    host = address.rpartition(":")[0].strip("[]")
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UserError(
            f"{_named(address)}: no host of that name is known ({error.strerror}); correct it, "
            f"or {_alone()}"
        ) from None
    return str(services.canonicalize_bootstrap_address(address))


def _lacks_token(address: str) -> UserError:
    return UserError(
        f"{_named(address)}: the cluster asks for a token, and the one here is missing or wrong; "
        "copy the head's ~/.ray/auth_token to this machine, or set RAY_AUTH_TOKEN, and set "
        "RAY_AUTH_MODE=token"
    )


def _named(address: str) -> str:
    return f"Ray's address {address}"


def _alone() -> str:
    return "leave --address out and RAY_ADDRESS unset to use this machine alone"


def _reason(error: grpc.RpcError) -> str:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"silent for {_SECONDS_TO_ANSWER} s"
    return " ".join(str(error.details()).split()).rpartition("last error: ")[2][:200]


def check_nodes(storage: Path | None, data: Path | None) -> None:
    """Check that every node of the cluster joined runs what this process runs.

    Args:
        storage: A folder that every node must see and may write to.
        data: Where tasks read cases; it counts only when it is there.

    Raises:
        UserError: When a node has another version, or does not see a folder.
    """
    with _probe(storage) as probe:
        seen = [str(path) for path in (probe, data) if path is not None and path.exists()]
        reports = _check_nodes(seen, str(storage) if storage else None)
    names = {str(probe): str(storage)}
    wanted = own_versions()
    faults = [
        fault
        for node, report in reports.items()
        for fault in faults_of(node, report, wanted, names)
    ]
    if faults:
        more = f" (and {len(faults) - _NAMED} more faults)" if len(faults) > _NAMED else ""
        raise UserError("; ".join(faults[:_NAMED]) + more)


def faults_of(
    node: str, report: NodeReport, wanted: Mapping[str, str], names: Mapping[str, str]
) -> Iterator[str]:
    """Say what is wrong with a node, each fault with its remedy.

    Args:
        report: What it says of itself.
        wanted: The versions that it must have.
        names: What to call what it looked for, where that is not its path.
    """
    for name in _COMPARED:
        has = report.versions.get(name)
        # Builds for a CPU and for a GPU are one version: 2.9.0+cpu is 2.9.0.
        if has is None or has.partition("+")[0] != wanted[name].partition("+")[0]:
            yield (
                f"node {node} has {f'{name} {has}' if has else f'no {name}'}, wanted "
                f"{wanted[name]} as here: install that there"
            )
    for path in report.unseen:
        place = names.get(path, path)
        remedy = "put it on a shared file system"
        if is_working_copy(Path(place)):
            remedy = "set STROKESEG_WORK to a folder on a shared file system"
        yield f"node {node} does not see {place}: {remedy} that every node mounts at the same place"
    for path in report.unwritable:
        yield f"node {node} may not write to {path}: give its user the right to"


@contextmanager
def _probe(storage: Path | None) -> Iterator[Path | None]:
    """Put a file into a folder for as long as the block takes."""
    if storage is None:
        yield None
        return
    storage.mkdir(parents=True, exist_ok=True)
    path = storage / f".probe-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _check_nodes(paths: Sequence[str], storage: str | None) -> dict[str, NodeReport]:
    task = ray.remote(_look_around())
    node_of = {
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(paths, storage): _name_of(node)
        for node in ray.nodes()
        if node["Alive"]
    }
    done, late = ray.wait(list(node_of), num_returns=len(node_of), timeout=_SECONDS_OF_A_TASK)
    if late:
        for task_ref in late:
            ray.cancel(task_ref, force=True)
        raise UserError(
            f"node {node_of[late[0]]} started no task within {_SECONDS_OF_A_TASK} s; see what Ray "
            "says there, or take it out of the cluster"
        )
    return {node_of[ref]: _answer(node_of[ref], ref) for ref in done}


def _answer(node: str, ref: ray.ObjectRef) -> NodeReport:
    try:
        return NodeReport(**ray.get(ref))
    except RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise UserError(
            f"node {node} cannot run tasks of ours: {reason}; install there what is installed here"
        ) from None


def _name_of(node: Mapping[str, Any]) -> str:
    host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return str(host) if host == address else f"{host} ({address})"


def _look_around() -> Callable[[Sequence[str], str | None], dict[str, Any]]:
    """Return what a node does: defined in here it travels whole, and needs nothing of ours."""

    def look_around(paths: Sequence[str], storage: str | None) -> dict[str, Any]:
        import contextlib  # noqa: PLC0415
        import importlib  # noqa: PLC0415
        import importlib.metadata  # noqa: PLC0415
        import os  # noqa: PLC0415
        import platform  # noqa: PLC0415

        versions = {"Python": platform.python_version()}
        for name in ("ray", "torch"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        with contextlib.suppress(ImportError):
            versions["strokeseg"] = importlib.import_module("strokeseg").__version__
        unseen = tuple(path for path in paths if not os.path.exists(path))
        barred = storage is not None and not unseen and not os.access(storage, os.W_OK)
        return {"versions": versions, "unseen": unseen, "unwritable": (storage,) * barred}

    return look_around
