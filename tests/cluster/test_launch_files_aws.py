"""What AWS would be asked for by `cluster/config.yaml`: Ray's own provider against moto's EC2."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import yaml
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster" / "config.yaml"
LAUNCH_FILES = [
    path for name in ("config", "on-premise") for path in (ROOT / "cluster").glob(f"{name}.yaml")
]
IMAGE = "ami-0123456789abcdef0"
GPUS_A_WORKER = 4


def loaded(path: Path = FILE) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


@pytest.fixture
def bootstrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The launch file as `ray up` hands it to its provider, in an account that is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # It waits for half a minute for AWS to make its own changes known.
    monkeypatch.setattr(aws_config.time, "sleep", lambda _: None)
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        for cache in (aws_utils.resource_cache, aws_utils.client_cache):
            cache.cache_clear()
        aws_config._get_subnets_or_die.cache_clear()
        yield aws_config.bootstrap_aws(prepare_config(loaded()))


def launch(config: dict[str, Any], node_type: str) -> dict[str, Any]:
    """Launch one node as the autoscaler would, and return what EC2 then knows of it."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_config = copy.deepcopy(config["available_node_types"][node_type]["node_config"])
    # moto knows images by number alone; the head's command puts one there (see below).
    node_config["ImageId"] = IMAGE
    tags = {"ray-node-type": "worker", "ray-launch-config": "1", "ray-user-node-type": node_type}
    (name,) = provider.create_node(node_config, tags, 1)
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    (reservation,) = ec2.describe_instances(InstanceIds=[name])["Reservations"]
    (instance,) = reservation["Instances"]
    assert isinstance(instance, dict)
    return instance


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_passes_rays_own_check(path: Path) -> None:
    validate_config(prepare_config(loaded(path)))


@pytest.mark.parametrize(
    ("node_type", "instance_type", "lifecycle"),
    [
        ("head", "m6i.2xlarge", None),
        ("worker-spot", "g5.12xlarge", "spot"),
        ("worker-on-demand", "g5.12xlarge", None),
    ],
)
def test_nodes_are_of_the_type_and_market_that_the_file_says(
    bootstrapped: dict[str, Any], node_type: str, instance_type: str, lifecycle: str | None
) -> None:
    instance = launch(bootstrapped, node_type)
    assert instance["InstanceType"] == instance_type
    assert instance.get("InstanceLifecycle") == lifecycle


def test_only_ssh_comes_in_from_outside(bootstrapped: dict[str, Any]) -> None:
    """Head and workers share one group: ssh from anywhere, all else from the group alone."""
    groups = {
        group["GroupId"]
        for node_type in bootstrapped["available_node_types"]
        for group in launch(bootstrapped, node_type)["SecurityGroups"]
    }
    ec2 = boto3.client("ec2", region_name=bootstrapped["provider"]["region"])
    (group,) = ec2.describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [
        ("tcp", 22, 22)
    ]
    inside = [rule for rule in group["IpPermissions"] if rule not in outside]
    assert [rule["IpProtocol"] for rule in inside] == ["-1"]
    assert {pair["GroupId"] for rule in inside for pair in rule["UserIdGroupPairs"]} == groups


def test_only_the_head_gets_a_role(bootstrapped: dict[str, Any]) -> None:
    assert "IamInstanceProfile" in bootstrapped["head_node"]
    for node_type in bootstrapped["available_node_types"].values():
        assert "IamInstanceProfile" not in node_type["node_config"]


def test_workers_get_the_heads_image(tmp_path: Path, bootstrapped: dict[str, Any]) -> None:
    """The head's command, asking a metadata service like EC2's: for a token, then the image."""
    (command,) = [line for line in loaded()["head_setup_commands"] if "ami-id" in line]
    remote = tmp_path / "ray_bootstrap_config.yaml"
    remote.write_text(json.dumps(bootstrapped))
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(
        '#!/bin/sh\ncase "$*" in *PUT*api/token) echo secret ;; '
        f'*"metadata-token:secret"*ami-id) echo {IMAGE} ;; *) exit 1 ;; esac\n'
    )
    curl.chmod(0o755)
    path = f"{curl.parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], check=True, env={"HOME": str(tmp_path), "PATH": path})
    workers = json.loads(remote.read_text())["available_node_types"].values()
    assert {node["node_config"]["ImageId"] for node in workers} == {IMAGE}


@pytest.mark.parametrize(
    ("availability", "expected"),
    [
        pytest.param({}, "worker-spot", id="spot first"),
        pytest.param({"worker-spot": 0.0}, "worker-on-demand", id="spot was refused"),
        pytest.param({"worker-spot": 0.9}, "worker-on-demand", id="refused nine minutes ago"),
        pytest.param({"worker-spot": 1.0}, "worker-spot", id="refused ten minutes ago"),
    ],
)
def test_on_demand_steps_in_where_spot_was_refused(
    tmp_path: Path, availability: dict[str, float], expected: str
) -> None:
    """Ray's scheduler, asked for the GPUs of two workers more than there are."""
    config = prepare_config(loaded())
    config["available_node_types"]["worker-spot"]["min_workers"] = 0
    # Paths of nodes, which the reader would look for here.
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({**config, "file_mounts": {}}))
    read = FileConfigReader(str(path), skip_content_hash=True).get_cached_autoscaling_config()
    demand = ResourceRequestByCount(
        request=ResourceRequestUtil.make({"CPU": 1, "GPU": 1}), count=2 * GPUS_A_WORKER
    )
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            node_type_configs=read.get_node_type_configs(),
            max_num_nodes=read.get_max_num_nodes(),
            resource_requests=[demand],
            recoverable_resource_availabilities=availability,
            disable_launch_config_check=True,
        )
    )
    assert [(launch.instance_type, launch.count) for launch in reply.to_launch] == [(expected, 2)]
