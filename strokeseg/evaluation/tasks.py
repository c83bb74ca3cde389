"""Spreading work over Ray, one case a task, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from strokeseg.errors import UserError

# One reads, prepares or scores while the other one's networks predict.
_TASKS_PER_GPU = 2


def run_tasks(
    work: Callable[..., Any],
    arguments: Mapping[str, tuple[Any, ...]],
    *,
    cpus: int = 1,
    on_gpu: bool = False,
) -> Iterator[tuple[str, Any]]:
    """Call `work` once for each entry, as Ray tasks.

    Args:
        work: A function of a module.
        arguments: By name of the entry.
        cpus: Of a task.
        on_gpu: Whether a task needs a share of a GPU.

    Yields:
        Names and results, first done first.

    Raises:
        UserError: When a GPU is needed and Ray knows of none.
    """
    if on_gpu and not ray.cluster_resources().get("GPU"):
        raise UserError("--device cuda: Ray finds no GPU; use --device cpu")
    gpus = 1 / _TASKS_PER_GPU if on_gpu else 0
    task = ray.remote(work).options(num_cpus=cpus, num_gpus=gpus)
    waiting = {task.remote(*given): name for name, given in arguments.items()}
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), ray.get(done)
    finally:
        for left in waiting:
            ray.cancel(left)


def cpus_a_task(tasks: int) -> int:
    """CPUs that each of so many tasks may have for all to run at once; at least one."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(min(sum(nodes) // max(tasks, 1), max(nodes))))
