"""Machine and versions, as far as they bear on a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from benchmarks.peers import peer_versions
from benchmarks.results import Setting

_PACKAGES = ("torch", "ray", "optuna", "segmentation-models-pytorch", "numpy", "pyarrow")


def find_setting(peers: Path) -> Setting:
    """Return what this process measures on.

    Args:
        peers: Folder of the peers' environment, whose versions are recorded if it is there.
    """
    return Setting(
        machine={
            "processor": _processor(),
            "cores usable": str(cores()),
            "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        },
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
            **peer_versions(peers),
        },
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=False, timeout=10)
    for line in found.stdout.splitlines():
        if line.startswith("Model name:"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
