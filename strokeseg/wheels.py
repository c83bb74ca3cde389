"""The wheels that a machine without a network needs.

A *wheel* is a Python package, built. A *target* is the interpreter and the kind of machine that
wheels are gathered for. uv builds strokeseg's own and works out what a target needs, in the
versions of `constraints.txt`: pip would judge the packages' conditions by the interpreter that it
runs on. pip then fetches each wheel and checks its hash: uv fetches only what it installs.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from strokeseg.config import Show
from strokeseg.errors import UserError
from strokeseg.files import file_sha256, replacing_file

OWN = "strokeseg"
# The C library of RHEL 8, Debian 10 and Ubuntu 18.10; PyTorch asks for no older one.
GLIBC_MINOR = 28
_AT_ONCE = 4
_AGAIN = (
    "mend that and give the same command again, which goes on from there; for another index set "
    "UV_DEFAULT_INDEX and PIP_INDEX_URL"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An interpreter on a kind of machine, always CPython on Linux.

    Attributes:
        python: Its version, such as `3.12`.
        machine: `x86_64` or `aarch64`.
    """

    python: str
    machine: str

    @property
    def uv_options(self) -> list[str]:
        """What tells uv of it."""
        system = f"{self.machine}-manylinux_2_{GLIBC_MINOR}"
        return ["--python-version", self.python, "--python-platform", system]

    @property
    def pip_options(self) -> list[str]:
        """What tells pip of it: unlike uv, it takes no wheel for an older glibc unasked."""
        systems = [f"manylinux_2_{minor}" for minor in range(GLIBC_MINOR, 4, -1)] + [
            *("manylinux2014", "manylinux2010", "manylinux1")
        ]
        return [
            *("--python-version", self.python, "--implementation", "cp"),
            *(word for name in systems for word in ("--platform", f"{name}_{self.machine}")),
        ]


def own_target() -> Target:
    """Return the target that this interpreter would be on Linux."""
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    return Target(python=".".join(platform.python_version_tuple()[:2]), machine=machine)


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build the wheel of strokeseg itself, and return its path in the folder.

    Raises:
        UserError: When this is no checkout, or uv is missing or cannot build it.
    """
    if not (checkout / "setup.cfg").is_file():
        raise UserError(
            f"{checkout}: must be a checkout of strokeseg, but has no setup.cfg; run this from "
            "one that is installed with pip install --editable '.[cluster]'"
        )
    with tempfile.TemporaryDirectory() as temporary:
        # By way of a source archive, so that modules of earlier builds do not come along.
        where = ["--python", sys.executable, "--out-dir", temporary, str(checkout)]
        _uv(f"the wheel of {OWN}: uv cannot build it", "build", *where)
        (built,) = Path(temporary).glob("*.whl")
        path = folder / built.name
        with replacing_file(path) as partial:
            partial.write_bytes(built.read_bytes())
    return path


def resolve(own: Path, extras: Sequence[str], constraints: Path, target: Target) -> str:
    """Return what a target needs, as lines for pip, one a package, each with its hashes.

    Args:
        own: The wheel of strokeseg itself.
        extras: Of strokeseg.
        constraints: The versions.
        target: What is needed where.

    Raises:
        UserError: When uv is missing, no index answers, or an index lacks a package.
    """
    wanted = f"{OWN}[{','.join(extras)}]"
    lines = _uv(
        "the packages that are needed: uv cannot work them out",
        *("pip", "compile", "-", "--python", sys.executable, "--only-binary", ":all:"),
        *("--constraints", str(constraints), *target.uv_options, "--generate-hashes"),
        *("--no-header", "--no-annotate", "--no-emit-package", OWN),
        given=f"{wanted} @ {own.absolute().as_uri()}\n",
    )
    version = own.name.split("-")[1]
    itself = f"{wanted}=={version} --hash=sha256:{file_sha256(own)}\n"
    return itself + re.sub(r" \\\n +", " ", lines)


def fetch_wheels(requirements: str, folder: Path, target: Target, show: Show) -> None:
    """Fetch the wheels that `resolve` named, but for those that lie in the folder whole.

    Raises:
        UserError: When one cannot be fetched or written; those before it stay.
    """
    lines = [line for line in requirements.splitlines() if not line.startswith(f"{OWN}[")]
    names = [line.split(" ")[0] for line in lines]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", *target.pip_options]
    command = ["download", *options, "--dest", str(folder), "--requirement", "/dev/stdin"]

    def fetch(name: str, line: str) -> None:
        _run(f"{name}: pip cannot fetch it", "pip", *command, given=line)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for done, _ in enumerate(threads.map(fetch, names, lines)):
            show(done + 1, len(names), names[done])


def _uv(fault: str, *arguments: str, given: str = "") -> str:
    return _run(fault, "uv", *arguments, "--quiet", given=given)


def _run(fault: str, tool: str, *arguments: str, given: str) -> str:
    """Run uv or pip and return what it printed."""
    if find_spec(tool) is None:
        raise UserError(
            f"{fault}, since {tool} is not installed here; install the extra: "
            "pip install --editable '.[cluster]'"
        )
    ended = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        input=given,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise UserError(f"{fault} ({_reason(tool, ended.stderr)}); {_AGAIN}")
    return ended.stdout


def _reason(tool: str, errors: str) -> str:
    """Say in one line why uv, which draws a tree, or pip, which may show a traceback, failed."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if tool == "pip":
        told = [line for line in lines if line.startswith("ERROR: ") and not line.endswith(":")]
        lines = (told or lines)[-1:]
    return " ".join(" ".join(lines).split())[:600]
