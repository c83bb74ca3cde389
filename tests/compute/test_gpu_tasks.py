"""Work spread over the GPUs of a real Ray, which are mere numbers here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from strokeseg.compute.tasks import run_tasks
from strokeseg.errors import UserError

# Each case notes its process and its GPU; the third loses its process once.
SPREAD = """
import json, os, sys, time
from pathlib import Path

import ray
from strokeseg.compute.tasks import run_tasks

def work(number, folder):
    begun = time.monotonic()
    time.sleep(0.5)
    if number == 2 and not (Path(folder) / "lost").exists():
        (Path(folder) / "lost").touch()
        os._exit(1)
    ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return os.getpid(), ids, begun, time.monotonic()

folder = sys.argv[1]
ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
         _temp_dir=folder)
cases = {f"case {number}": (number, folder) for number in range(9)}
print(json.dumps(dict(run_tasks(work, cases, on_gpu=True))))
"""


def test_cases_share_gpus_two_by_two_in_processes_that_keep_theirs(
    said_in_own_ray: Callable[[str], Any],
) -> None:
    found = said_in_own_ray(SPREAD)
    assert found.keys() == {f"case {number}" for number in range(9)}
    gpus = defaultdict(set)
    for process, ids, _, _ in found.values():
        gpus[process].update(ids)
    # The one that was lost is another process now.
    assert 4 <= len(gpus) <= 5
    assert all(len(ids) == 1 for ids in gpus.values())
    assert set().union(*gpus.values()) == {"0", "1"}
    moments = [(begun, ended) for _, _, begun, ended in found.values()]
    at_once = [sum(b <= begun < e for b, e in moments) for begun, _ in moments]
    assert 2 <= max(at_once) <= 4


def test_a_gpu_that_is_not_there_is_one_line(local_ray: None) -> None:
    with pytest.raises(UserError, match="Ray finds no GPU"):
        next(run_tasks(len, {"case": ("1",)}, on_gpu=True))
