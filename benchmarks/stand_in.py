"""A trial that trains nothing and reports all its epochs at once.

Apart from what runs in the driver, since hundreds of its processes are to fit one machine: Tune
alone is 100 MB of each, and torch would be four times as much.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

_SECONDS_BETWEEN_LOOKS = 0.2


def stand_in(proposal: Mapping[str, Any], *, epochs: int) -> None:
    """Report as many epochs as a trial has, with the metrics of a trial."""
    for epoch in range(1, epochs + 1):
        tune.report(metrics_of(epoch))


def metrics_of(epoch: int, dice: float = 0.5) -> dict[str, Any]:
    """What `tuning.trial` reports of an epoch."""
    return {
        "epoch": epoch,
        "dice": dice,
        "learning_rate": 1e-3,
        "losses": {"dice": 0.5, "cross_entropy": 0.1, "focal": 0.0},
        "seconds": 10.0 * epoch,
        "device_hours": 0.01 * epoch,
        "slices_per_second": 100.0,
        "wait_share": 0.0,
        "memory_gb": 1.0,
        "spread": 0.1,
    }


def warm_up(workers: int) -> None:
    """Start so many workers on this machine, whose seconds would drown what is measured."""
    with tempfile.TemporaryDirectory() as folder:
        arrive = ray.remote(_arrive).options(num_cpus=1)
        ray.get([arrive.remote(folder, number, workers) for number in range(workers)])


def _arrive(folder: str, number: int, all_of_them: int) -> None:
    """Wait for all others, so that each has a worker of its own, which has imported Tune."""
    (Path(folder) / str(number)).touch()
    while len(list(Path(folder).iterdir())) < all_of_them:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
