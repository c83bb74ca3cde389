"""Spreading work over Ray, one case a task, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from strokeseg.errors import UserError

# One reads, prepares or scores while the other one's networks predict.
_TASKS_PER_GPU = 2
# As often as Ray tries tasks again whose process is lost.
_RETRIES = 3


def run_tasks(
    work: Callable[..., Any],
    arguments: Mapping[str, tuple[Any, ...]],
    *,
    cpus: int = 1,
    on_gpu: bool = False,
) -> Iterator[tuple[str, Any]]:
    """Call `work` once for each entry, in processes of Ray.

    On GPUs it is always the same processes: one that is left idle may be given another GPU next
    time, and CUDA stays with its first.

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
    if on_gpu:
        yield from _on_gpus(work, arguments, cpus)
        return
    task = ray.remote(work).options(num_cpus=cpus)
    waiting = {task.remote(*given): name for name, given in arguments.items()}
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), ray.get(done)
    finally:
        for left in waiting:
            ray.cancel(left)


class _Worker:
    """A process with its share of a GPU."""

    def do(self, work: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """Call a function."""
        return work(*given)


def _on_gpus(
    work: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], cpus: int
) -> Iterator[tuple[str, Any]]:
    places = sum(
        min(int(_TASKS_PER_GPU * node["Resources"].get("GPU", 0)), _cpus_of(node) // cpus)
        for node in ray.nodes()
        if node["Alive"]
    )
    kind = ray.remote(
        num_cpus=cpus,
        num_gpus=1 / _TASKS_PER_GPU,
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )(_Worker)
    idle = [kind.remote() for _ in range(min(len(arguments), max(1, places)))]
    workers = tuple(idle)
    left = dict(arguments)
    busy: dict[ray.ObjectRef, tuple[str, Any]] = {}
    try:
        while left or busy:
            while left and idle:
                name, worker = next(iter(left)), idle.pop()
                busy[worker.do.remote(work, left.pop(name))] = name, worker
            (done,), _ = ray.wait(list(busy), num_returns=1)
            name, worker = busy.pop(done)
            idle.append(worker)
            yield name, ray.get(done)
    finally:
        for worker in workers:
            ray.kill(worker)


def _cpus_of(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))


def cpus_a_task(tasks: int) -> int:
    """CPUs that each of so many tasks may have for all to run at once; at least one."""
    nodes = [_cpus_of(node) for node in ray.nodes() if node["Alive"]]
    return max(1, int(min(sum(nodes) // max(tasks, 1), max(nodes))))
