"""The peers' environment: nnU-Net and MONAI, apart from our own.

Peers are run as processes of a virtual environment of their own, so that what they need never
decides what we do. Their torch is ours, release by release. Both are named in setup.cfg's extra
`benchmarks`. Made once, with uv where it is installed and else with venv and pip (6 GB, most of
it torch):

python -m benchmarks.peers
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DEFAULT_PEERS = CHECKOUT / ".venv-peers"
_PACKAGES = ("monai", "nnunetv2", "torch")
_VERSIONS_SCRIPT = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, metavar="FOLDER")
    options = parser.parse_args()
    make(options.peers)
    for name, found in peer_versions(options.peers).items():
        print(f"{name} {found}")


def make(folder: Path) -> None:
    """Make the environment, or bring it up to date."""
    wanted = [*requirements(), f"torch=={version('torch').partition('+')[0]}"]
    if shutil.which("uv"):
        if not peer_python(folder).exists():
            subprocess.run(["uv", "venv", "--python", sys.executable, str(folder)], check=True)
        # Else the first timing of a peer would compile its modules.
        into = ["--python", str(peer_python(folder))]
        subprocess.run(["uv", "pip", "install", "--compile-bytecode", *into, *wanted], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(peer_python(folder)), "-m", "pip"]
        subprocess.run([*pip, "install", *wanted], check=True)


def requirements() -> list[str]:
    """Return what setup.cfg's extra `benchmarks` names."""
    setup = ConfigParser()
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    return setup["options.extras_require"]["benchmarks"].split()


def peer_python(folder: Path) -> Path:
    """Return the environment's interpreter."""
    return folder.absolute() / "bin" / "python"


def missing(folder: Path) -> str | None:
    """Return one line that says how to make the environment; None when it is there."""
    if peer_python(folder).exists():
        return None
    return (
        f"no environment of peers in {folder.name}; make it with `python -m benchmarks.peers`, "
        "or name another with --peers"
    )


def peer_versions(folder: Path) -> dict[str, str]:
    """Return the peers' versions; None without the environment."""
    if missing(folder):
        return {}
    command = [str(peer_python(folder)), "-c", _VERSIONS_SCRIPT, *_PACKAGES]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return {name if name != "torch" else "torch of the peers": of for name, of in found.items()}


if __name__ == "__main__":
    main()
