"""`cluster/kuberay.yaml` against a schema of what KubeRay takes, and against itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from strokeseg.run import main as run

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = yaml.safe_load((Path(__file__).parent / "rayjob.schema.yaml").read_text("utf-8"))


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    text = (ROOT / "cluster" / "kuberay.yaml").read_text(encoding="utf-8")
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


@pytest.fixture
def cluster(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec = manifests["RayJob"]["spec"]["rayClusterSpec"]
    assert isinstance(spec, dict)
    return spec


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])


def test_it_says_what_kuberay_takes(manifests: dict[str, dict[str, Any]]) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(manifests["RayJob"], SCHEMA)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), 4),
        (("rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), "4"),
        (("rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("rayClusterSpec", "autoscalerOptions", "upscalingMode"), "Fast"),
        (("submissionMode",), "Batch"),
    ],
)
def test_the_schema_refuses_what_kuberay_refuses(
    manifests: dict[str, dict[str, Any]], place: tuple[Any, ...], value: object
) -> None:
    damaged = copy.deepcopy(manifests["RayJob"])
    part = damaged["spec"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(damaged, SCHEMA)


def test_workers_come_and_go_with_the_gpus_that_are_asked_for(cluster: dict[str, Any]) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    (group,) = cluster["workerGroupSpecs"]
    assert 0 < group["minReplicas"] < group["maxReplicas"]
    (container,) = group["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) > 1
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


def test_the_token_comes_from_the_secret_that_the_head_says_how_to_make(
    cluster: dict[str, Any],
) -> None:
    assert cluster["authOptions"] == {"mode": "token", "secretName": "strokeseg-token"}
    text = (ROOT / "cluster" / "kuberay.yaml").read_text(encoding="utf-8")
    assert "kubectl create secret generic strokeseg-token" in text
    # The key under which the operator looks for it.
    assert "--from-literal=auth_token=" in text


def test_all_nodes_share_the_claim_that_the_job_writes_to(
    manifests: dict[str, dict[str, Any]],
) -> None:
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(manifests["RayJob"]):
        (volume,) = (v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v)
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            entrypoint = manifests["RayJob"]["spec"]["entrypoint"]
            assert f"--storage {mounts[volume['name']]}/" in entrypoint


def test_object_stores_fit_their_pods_memory(manifests: dict[str, dict[str, Any]]) -> None:
    """Shared memory counts as the pod's own: half of it is left for the processes."""
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
        assert int(group["rayStartParams"]["object-store-memory"]) < memory / 2


def test_the_policy_covers_every_pod_of_the_cluster(manifests: dict[str, dict[str, Any]]) -> None:
    """From elsewhere only the dashboard's port is open, and to two kinds of pods alone."""
    policy = manifests["NetworkPolicy"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    assert all(
        labels.items() <= pod["metadata"]["labels"].items() for pod in pods(manifests["RayJob"])
    )
    inside, outside = policy["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert outside["ports"] == [{"port": 8265, "protocol": "TCP"}]
    assert all("podSelector" in source for source in outside["from"])
    assert (
        manifests["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    )


def test_the_versions_are_the_pinned_ones(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == ray.__version__
    pins = (ROOT / "constraints.txt").read_text().split()
    assert f"ray=={cluster['rayVersion']}" in pins


def test_the_entrypoint_is_a_command_that_run_understands(
    manifests: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = manifests["RayJob"]["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "strokeseg.run"]
    with pytest.raises(SystemExit) as ending:
        run([*words[3:], "--help"])
    assert ending.value.code == 0
    assert "--storage" in capsys.readouterr().out
