"""What all launch files of `cluster/` have in common: no secrets, no open doors, sound shell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())
# Of a key or token: letters and digits in one long word, both kinds among them.
SECRET = re.compile(
    r"\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{24,}\b|BEGIN [A-Z ]*PRIVATE KEY|AKIA[A-Z0-9]{16}"
)
STARTED = [
    (path.name, command)
    for path in CLUSTER.glob("*.yaml")
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for key in ("head_start_ray_commands", "worker_start_ray_commands")
    for command in document.get(key, [])
    if "ray start" in command
]


def name_of(path: Path) -> str:
    return path.name


def test_there_is_one_file_for_each_kind_of_cluster() -> None:
    assert {path.name for path in FILES} >= {"config.yaml", "kuberay.yaml", "slurm.sh", "README.md"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert SECRET.findall(path.read_text(encoding="utf-8")) == []


def test_a_secret_would_be_found() -> None:
    assert SECRET.search("RAY_AUTH_TOKEN=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c")


@pytest.mark.parametrize("name", ["auth_token", "cluster/auth_token", "my.pem", "cluster.token"])
def test_git_ignores_tokens_and_keys(name: str) -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git repository here")
    ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
    assert ignored.returncode == 0


@pytest.mark.parametrize(
    "path",
    # prefetch.sh starts no cluster.
    [p for p in FILES if p.suffix in {".yaml", ".sh"} and p.name != "prefetch.sh"],
    ids=name_of,
)
def test_a_launch_file_turns_token_authentication_on(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"RAY_AUTH_MODE=token|authOptions: {mode: token", text)


@pytest.mark.parametrize(("name", "command"), STARTED)
def test_the_dashboard_listens_on_loopback(name: str, command: str) -> None:
    # Loopback is also Ray's default.
    assert set(re.findall(r"--dashboard-host[= ](\S+)", command)) <= {"127.0.0.1"}, name


def test_slurms_dashboard_is_off() -> None:
    assert "--include-dashboard=false" in (CLUSTER / "slurm.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["slurm.sh", "prefetch.sh"])
def test_the_shell_scripts_are_sound(name: str) -> None:
    checker = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    checked = subprocess.run(
        [checker, str(CLUSTER / name)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def commands_of(config: dict[str, Any]) -> list[str]:
    return [
        command
        for key, commands in config.items()
        if key.endswith("_commands")
        for command in commands
    ]


def test_commands_for_nodes_are_sound_shell() -> None:
    config = yaml.safe_load((CLUSTER / "config.yaml").read_text(encoding="utf-8"))
    commands = commands_of(config)
    assert len(commands) > 10
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_what_is_mounted_is_there_and_enough_to_install() -> None:
    """All that setup.cfg reads at installation, and nothing that holds patients' data."""
    config = yaml.safe_load((CLUSTER / "config.yaml").read_text(encoding="utf-8"))
    mounts = {remote: local for remote, local in config["file_mounts"].items() if "~/s" in remote}
    assert all((ROOT / local).exists() for local in mounts.values())
    assert {"strokeseg", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= {
        *mounts.values()
    }
    assert not {".", "runs"} & {*mounts.values()}
