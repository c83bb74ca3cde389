"""PyTorch's threads are set not to spin for long, unless somebody decides otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = "import os, strokeseg; print(os.environ.get('GOMP_SPINCOUNT'))"
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("asked", "set_to"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"),
    ],
)
def test_threads_spin_as_long_as_strokeseg_or_the_environment_says(
    asked: dict[str, str], set_to: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == set_to
