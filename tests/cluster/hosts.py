"""Hosts: machines in miniature, made of Linux namespaces, for tests of clusters over ssh.

A *host* has its own network, processes, mounts and name: an address on a switch that only hosts are
on, a sshd on port 22, and a home folder of its own. What it writes to `/tmp`, `/run` and `/dev/shm`
no other sees; the folder that holds the homes all of them share, as machines share an NFS. What
runs in a host ends when its first process does, and its first process when the one that made it
does, so that a host can be killed as if it had crashed, and nothing outlives a test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = (
    *("unshare", "nsenter", "setpriv", "ip", "ssh-keygen", "ssh", "rsync"),
    "/usr/sbin/sshd",
)
# Its processes end with the one that started it, however that ended.
_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--fork", "--kill-child"),
    *("--mount", "--mount-proc", "--uts"),
)
_PREFIX = "10.77.0"
_GATEWAY = f"{_PREFIX}.254"
_READY_SECONDS = 30
_CHECKOUT = Path(__file__).resolve().parents[2]
_SSHD = """\
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
"""
# What a host writes goes to its own memory.
_OWN_MEMORY = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd /run/written /run/work /run/shared
layers=lowerdir=/tmp,upperdir=/run/written,workdir=/run/work
"""
# The first process of a host. A shell, since it also takes in the orphans.
_FIRST = f"""\
{_OWN_MEMORY}
mount --bind {{folder}} /run/shared
mount -t overlay -o $layers overlay /tmp
mount --move /run/shared {{folder}}
mount --bind {{home}}/passwd /etc/passwd
mount --bind {{folder}}/hosts /etc/hosts
# Nobody answers names here, and waiting for that takes its time.
test ! -e /etc/resolv.conf || mount --bind /dev/null /etc/resolv.conf
hostname {{name}}
ip link set lo up
while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add {{address}}/24 dev eth0
ip link set eth0 up
ip route add default via {{gateway}}
/usr/sbin/sshd -D -e -f {{folder}}/sshd_config 2>{{home}}/sshd.log &
touch {{home}}/ready
while :; do sleep 3600 & wait $!; done
"""


def missing() -> str:
    """Say why hosts cannot be made here, or None when they can."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    if lacking := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"needs {', '.join(lacking)}"
    tried = subprocess.run(
        [*_NAMESPACES, "sh", "-c", f"{_OWN_MEMORY}mount -t overlay -o $layers overlay /tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"may not make namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host.

    Attributes:
        name: Its name.
        address: Its address on the switch.
        home: The home folder of root there.
        first: Process id, seen from outside, of its first process.
    """

    name: str
    address: str
    home: Path
    first: int

    def command(self, words: Sequence[str], **environment: str) -> list[str]:
        """Return the command line that runs a command inside the host, in its home."""
        settings = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/strokeseg/.venv/bin:{os.environ['PATH']}",
            "USER": "root",
            "PYTHONPATH": str(_CHECKOUT),
            **environment,
        }
        inside = ["nsenter", "--target", str(self.first), "--net", "--pid", "--mount", "--uts"]
        inside += [f"--wd={self.home}", "env", "--ignore-environment"]
        return [*inside, *(f"{name}={value}" for name, value in settings.items()), *words]

    def run(
        self, *words: str, check: bool = True, seconds: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host and return its output."""
        done = subprocess.run(
            self.command(words, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: {done.stdout}")
        return done

    def kill(self) -> None:
        """End all that runs there at once, as if its plug were pulled."""
        os.kill(self.first, signal.SIGKILL)


@contextmanager
def hosts_on_a_switch(names: Sequence[str], folder: Path) -> Iterator[dict[str, Host]]:
    """Make hosts, all of which trust one key and see this checkout at `~/strokeseg`.

    Args:
        names: Their names, in order of their addresses.
        folder: For their homes; must have a short path, since Ray's sockets lie below.
    """
    folder.mkdir(parents=True)
    for key in ("key", "host_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True
        )
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder))
    addresses = {name: f"{_PREFIX}.{number}" for number, name in enumerate(names, start=1)}
    lines = ["127.0.0.1 localhost", *(f"{of} {name}" for name, of in addresses.items()), ""]
    (folder / "hosts").write_text("\n".join(lines))
    with ExitStack() as running:
        switch = _start(["sleep", "infinity"], folder / "switch.log", running)
        _in(switch, "ip link add switch type bridge && ip link set switch up && ip link set lo up")
        _in(switch, f"ip address add {_GATEWAY}/24 dev switch")
        yield {name: _host(name, of, folder, switch, running) for name, of in addresses.items()}


def _host(name: str, address: str, folder: Path, switch: int, running: ExitStack) -> Host:
    home = folder / name
    _furnish(home, folder)
    script = _FIRST.format(name=name, home=home, folder=folder, address=address, gateway=_GATEWAY)
    first = _start(["bash", "-c", script], home / "first.log", running)
    _in(
        switch,
        f"ip link add {name} type veth peer name eth0 netns {first}"
        f" && ip link set {name} master switch up",
    )
    deadline = time.monotonic() + _READY_SECONDS
    while not (home / "ready").exists():
        if time.monotonic() > deadline or not Path(f"/proc/{first}").exists():
            raise RuntimeError(f"host {name} did not start: {(home / 'first.log').read_text()}")
        time.sleep(0.05)
    return Host(name=name, address=address, home=home, first=first)


def _furnish(home: Path, folder: Path) -> None:
    """Give a host's root a home: a key, an environment, this checkout."""
    checkout = home / "strokeseg"
    for place in (home / ".ssh", checkout):
        place.mkdir(parents=True)
    shutil.copy(folder / "key", home / ".ssh" / "id_ed25519")
    for name in ("strokeseg", "experiments", "search_spaces", "cluster"):
        (checkout / name).symlink_to(_CHECKOUT / name)
    (checkout / ".venv").symlink_to(sys.prefix)
    # What is tested is this checkout, also where the environment has another one installed.
    (home / ".bashrc").write_text(f"export PYTHONPATH={_CHECKOUT}\n")
    lines = Path("/etc/passwd").read_text().splitlines()
    others = [line for line in lines if not line.startswith("root:")]
    (home / "passwd").write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *others, ""]))


def _start(words: Sequence[str], log: Path, running: ExitStack) -> int:
    """Start a command as the first process of new namespaces, until `running` is closed.

    Args:
        log: A file for what it has to say.
        running: What ends it.

    Returns:
        Its process id, seen from outside.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_NAMESPACES, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        first = _child_of(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    running.callback(_end, process, first)
    return first


def _child_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + _READY_SECONDS
    while not (found := children.read_text().split()):
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"{process.args}: started nothing in namespaces of its own")
        time.sleep(0.02)
    return int(found[0])


def _end(process: subprocess.Popen[bytes], first: int) -> None:
    # The first process has ended when all that runs there has, and unshare ends after it.
    if process.poll() is None:
        os.kill(first, signal.SIGKILL)
    process.wait()


def _in(switch: int, script: str) -> None:
    subprocess.run(["nsenter", "--target", str(switch), "--net", "sh", "-c", script], check=True)
