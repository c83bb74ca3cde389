"""A cluster of hosts, made and used by typing what the head of on-premise.yaml says to type.

Besides, what a search there has reported so far, as its journal on the shared storage tells.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from strokeseg.records.experiment import Experiment

if TYPE_CHECKING:
    from hosts import Host

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "cluster" / "on-premise.yaml"
_CTRL_C = b"\x03"
_JOIN_SECONDS = 300.0


class Cluster:
    """The launch file with the hosts' addresses in it, and commands typed on the laptop.

    Args:
        nodes: Names of those that are to form the cluster, the head first.
        laptop: Name of the one on which the commands are typed.
    """

    def __init__(self, hosts: Mapping[str, Host], nodes: Sequence[str], laptop: str) -> None:
        self.laptop = hosts[laptop]
        self.nodes = [hosts[name] for name in nodes]
        addresses = [host.address for host in self.nodes]
        text = LAUNCH_FILE.read_text().replace("ssh_user: researcher", "ssh_user: root")
        text = re.sub(r"(?m)^  head_ip: .*", f"  head_ip: {addresses[0]}", text)
        text = re.sub(r"(?m)^  worker_ips: .*", f"  worker_ips: [{', '.join(addresses[1:])}]", text)
        self.file = self.laptop.home / LAUNCH_FILE.name
        self.file.write_text(text)
        self.laptop.run("ray", "get-auth-token", "--generate")

    def up(self) -> None:
        """Launch the cluster and wait until all its nodes have joined."""
        up = ("ray", "up", "--yes", "--no-config-cache", str(self.file))
        self.laptop.run(*up, RAY_UP_enable_autoscaler_v2="0")
        deadline = time.monotonic() + _JOIN_SECONDS
        while f"{len(self.nodes)} local.cluster.node" not in (output := self.exec("ray status")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self.nodes)} nodes did not join: {output}")
            time.sleep(0.5)

    def exec(self, command: str, *, check: bool = True) -> str:
        """Return what a command says on the head."""
        return self.laptop.run("ray", "exec", str(self.file), command, check=check).stdout

    def submit(self, script: Path, arguments: Sequence[str]) -> str:
        """Run a script that lies on the laptop on the head, and return what it says."""
        words = ("ray", "submit", str(self.file), str(script), "--", *arguments)
        return self.laptop.run(*words).stdout

    def fetch(self, path: Path) -> Path:
        """Bring a file home and return where it lies."""
        home = self.laptop.home / path.name
        self.laptop.run("ray", "rsync-down", str(self.file), str(path), str(home))
        return home

    def down(self) -> None:
        self.laptop.run("ray", "down", "--yes", str(self.file))

    @contextmanager
    def watched(self, command: str) -> Iterator[Terminal]:
        """Run a command on the head in a terminal of the laptop."""
        inside = self.laptop.command(["ray", "exec", str(self.file), command])
        log = self.laptop.home / "terminal.log"
        process = subprocess.Popen(
            ["script", "--quiet", "--flush", "--command", " ".join(map(shlex.quote, inside)), log],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield Terminal(process, log)
        finally:
            process.kill()
            process.wait()


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def interrupt(self) -> None:
        """Press Ctrl-C and wait until the command has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(_CTRL_C)
        self._process.stdin.flush()
        self._process.wait(60)

    def text(self) -> str:
        """Return all that was to be read there."""
        return self._log.read_text(errors="replace")


def reports(experiment: Experiment, axis: str) -> Counter[tuple[int, int]]:
    """How often each epoch of each trial of an axis was reported."""
    found: Counter[tuple[int, int]] = Counter()
    with suppress(FileNotFoundError):
        for line in experiment.journal(axis).read_text().splitlines():
            # The last line may be half written.
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if "intermediate_value" in entry:
                    found[entry["trial_id"], entry["step"]] += 1
    return found
