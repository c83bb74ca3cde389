"""A Ray session of one machine listens on all of its addresses: who has no token stays outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

SESSION = """
import sys
from pathlib import Path
import ray
from strokeseg.compute.session import ray_session
with ray_session(Path(sys.argv[1])):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""
GUEST = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=0)
def ran() -> str:
    return "ran here"

print(ray.get(ran.remote(), timeout=60))
"""


def start(code: str, argument: object, home: Path, **mode: str) -> subprocess.Popen[str]:
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(argument)],
        env={**kept, "HOME": str(home), "PYTHONPATH": str(CHECKOUT), **mode},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_only_who_holds_the_token_runs_code_in_a_private_session(tmp_path: Path) -> None:
    session = start(SESSION, tmp_path, tmp_path / "owner")
    try:
        assert session.stdout is not None
        address = session.stdout.readline().strip()
        assert address
        # One guest without a token, one with a wrong one, and one with the owner's.
        forged = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        guests = [
            start(GUEST, address, tmp_path / "stranger"),
            start(GUEST, address, tmp_path / "stranger", **forged),
            start(GUEST, address, tmp_path / "owner", RAY_AUTH_MODE="token"),
        ]
        output = [guest.communicate(timeout=180) for guest in guests]
    finally:
        session.communicate(timeout=120)
    assert [guest.returncode == 0 for guest in guests] == [False, False, True], output
    assert ["ran here" in out for out, _ in output] == [False, False, True]
    assert all("InvalidAuthToken" in error for _, error in output[:2])
