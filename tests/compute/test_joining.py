"""A cluster is joined when its nodes are like this one, and refused in one line when not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import strokeseg
from strokeseg.compute.joining import NodeReport, faults_of, find_cluster
from strokeseg.errors import UserError
from strokeseg.process.temporary_folder import temporary_folder
from strokeseg.storage.remote_copy import remote_copy_of

ROOT = Path(strokeseg.__file__).resolve().parents[1]
WANTED = {"Python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0+cpu", "strokeseg": "1.2.0"}
NAMESPACES = ["unshare", "-npmuf", "--kill-child", "--mount-proc"]
TOKEN = "0123456789abcdef" * 3

# Joins, and tells in which order; the folders are the storage and the data.
JOIN = """
import sys
from pathlib import Path
import ray
from strokeseg import cli
from strokeseg.compute.session import ray_session

def work():
    storage, data = map(Path, sys.argv[3:5])
    with cli.logging_to(Path(sys.argv[2])), ray_session(storage, data):
        print(len(ray.nodes()))
    return 0

sys.exit(cli.run_command(work, sys.argv[1]))
"""

# A head in namespaces of its own, in which every command of a line of JSON is then run. Another
# host is a node with its own name, in whose mounts the package and the storage are others.
HOSTS = """
import json, os, subprocess, sys
def run(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    return [done.returncode, done.stdout, done.stderr]
for line in (
    "link set lo up", "address add 10.9.9.9/32 dev lo", "route add default dev lo src 10.9.9.9"
):
    subprocess.run(["ip", *line.split()], check=True)
print(json.dumps([run(line) for line in json.load(sys.stdin)]))
"""


def test_builds_for_other_devices_are_one_version() -> None:
    report = NodeReport(versions={**WANTED, "torch": "2.15.0+cu130"})
    assert list(faults_of("w1", report, WANTED, {})) == []


@pytest.mark.parametrize(
    ("has", "fault"),
    [
        ({"Python": "3.11.6"}, "node w1 has Python 3.11.6, wanted 3.11.7 as here"),
        ({"torch": "2.14.1+cpu"}, r"has torch 2.14.1\+cpu, wanted 2.15.0\+cpu"),
        ({"strokeseg": None}, "has no strokeseg, wanted 1.2.0"),
    ],
)
def test_another_version_is_named(has: dict[str, str | None], fault: str) -> None:
    versions = {name: each for name, each in {**WANTED, **has}.items() if each is not None}
    (found,) = faults_of("w1", NodeReport(versions=versions), WANTED, {})
    with pytest.raises(UserError, match=fault):
        raise UserError(found)


def test_a_working_copy_that_nodes_do_not_share_names_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STROKESEG_WORK", str(tmp_path))
    folder = remote_copy_of("s3://research/runs").folder
    report = NodeReport(versions=WANTED, unseen=("/probe", "/data"))
    copied, data = faults_of("w1", report, WANTED, {"/probe": str(folder)})
    assert copied == (
        f"node w1 does not see {folder}: set STROKESEG_WORK to a folder on a shared file system "
        "that every node mounts at the same place"
    )
    assert data.startswith("node w1 does not see /data: put it on a shared file system")


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("ray://head:10001", "must be HOST:PORT"),
        ("http://127.0.0.1:8265", "must be HOST:PORT"),
        ("head", "must be HOST:PORT"),
        ("nowhere.invalid:6379", "no host of that name is known"),
        ("127.0.0.1:1", "no Ray answers there"),
    ],
)
def test_an_address_without_ray_is_refused_in_seconds(address: str, fault: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=fault) as caught:
        find_cluster(address)
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)


@pytest.fixture
def place() -> Iterator[Path]:
    with temporary_folder(Path("/tmp"), "ssj-") as folder:
        yield folder


@pytest.mark.slow
def test_a_cluster_of_hosts_is_joined_only_when_all_are_alike(place: Path) -> None:
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command to set up a network with")
    storage, data, home = (place / name for name in ("runs", "data", "home"))
    for folder in (storage, data, home):
        folder.mkdir()
    other = place / "other"
    other.mkdir()
    (other / "__init__.py").write_text('__version__ = "0.0.1"\n')
    token = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={TOKEN} PYTHONPATH={ROOT} HOME={home}"
    start = f"{token} {sys.executable} -m ray.scripts.scripts start --num-cpus 1"
    python = f"{token} {sys.executable}"
    tail = f"{place / 'log'} {storage} {data}"
    (place / "join.py").write_text(JOIN)
    join = f"{place / 'join.py'}"
    faulty = (
        f"hostname other && mount --bind {other} {ROOT / 'strokeseg'} && "
        f"mount -t tmpfs none {storage} && {start} --address 10.9.9.9:7001"
    )
    lines = [
        f"{start} --head --port 7001 --include-dashboard false --temp-dir {place / 'r'}",
        f"{python} {join} 10.9.9.9:7001 {tail}",
        f"{python} {join} auto {tail}",
        f"{python.replace('MODE=token', 'MODE=disabled')} {join} 10.9.9.9:7001 {tail}",
        f"unshare -pmf --mount-proc env {python} {join} 10.9.9.9:7001 {tail}",
        f"unshare -mu sh -c '{faulty}'",
        f"{python} {join} 10.9.9.9:7001 {tail}",
    ]
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-c", HOSTS],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    head, joined, found, disabled, elsewhere, node, refused = json.loads(done.stdout)
    assert head[0] == 0 and node[0] == 0, (head, node)
    assert joined == [0, "1\n", ""]
    assert found == [0, "1\n", ""]
    assert disabled[0] == 2 and "the cluster asks for a token" in disabled[2]
    assert elsewhere[0] == 2 and "is not one of the cluster's nodes" in elsewhere[2]
    assert refused[:2] == [2, ""]
    assert (
        f"node other (10.9.9.9) has strokeseg 0.0.1, wanted {strokeseg.__version__}" in (refused[2])
    )
    assert f"node other (10.9.9.9) does not see {storage}: put it on a shared" in refused[2]
    for each in (disabled, elsewhere, refused):
        assert len(each[2].splitlines()) == 1
    # The probe goes with the check.
    assert list(storage.iterdir()) == []
