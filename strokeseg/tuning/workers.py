"""One trial in several processes.

The trial's own process is rank 0, the only one that reports and writes. The others, the
*followers*, are Ray actors in the other bundles of the trial's placement group: what a trial
uses is what was reserved for it, and all of it goes when the trial's process goes.

Ray Train's TorchTrainer would place its workers beside what Tune has reserved, and takes half a
minute to start; here a trial starts as soon as its followers have imported torch.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import ray
import torch
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from strokeseg.learning.world import ALONE, World

_PATIENCE = timedelta(minutes=10)
# Ranks that fail for one reason fail together; then rank 0 says it.
_SECONDS_FOR_RANK_0 = 5.0
_LOST = 1

# What a follower does in the world it is given: it returns why it failed, or nothing.
Follow = Callable[[World], str | None]


@contextmanager
def world_of(size: int, *, cpus: int, gpus: float, follow: Follow) -> Iterator[World]:
    """Gather the processes of this trial, and part with them at the end.

    A follower that is lost takes this process along, so that Tune tries the trial again. One
    that fails alone is reported as the trial's failure.

    Args:
        size: Processes in all, this one included; with one there are no followers.
        cpus: CPUs, and threads, of each.
        gpus: GPUs of each.
        follow: What each follower does; pickled on its way there.
    """
    if size == 1:
        yield ALONE
        return
    host = get_node_ip_address()
    store = TCPStore(host, 0, size, is_master=True, timeout=_PATIENCE, wait_for_workers=False)
    group = get_current_placement_group()
    kind = ray.remote(_Follower)
    followers = [
        kind.options(
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=rank
            ),
        ).remote()
        for rank in range(1, size)
    ]
    ends = [
        follower.run.remote(follow, host, store.port, World(rank=rank, size=size), cpus, gpus)
        for rank, follower in enumerate(followers, start=1)
    ]
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ends, over), daemon=True)
    watcher.start()
    try:
        _join(store, World(rank=0, size=size), gpus)
        yield World(rank=0, size=size)
    except RuntimeError:
        # A broken connection: the watcher finds out which follower is gone.
        watcher.join(2 * _SECONDS_FOR_RANK_0)
        raise
    finally:
        over.set()
        for follower in followers:
            ray.kill(follower)
        if distributed.is_initialized():
            distributed.destroy_process_group()


class _Follower:
    """One of a trial's other processes."""

    def run(
        self, follow: Follow, host: str, port: int, world: World, threads: int, gpus: float
    ) -> str | None:
        """Join the world and do what there is to do; return why it failed, or nothing."""
        torch.set_num_threads(threads)
        store = TCPStore(host, port, world.size, timeout=_PATIENCE)
        _join(store, world, gpus)
        return follow(world)


def _join(store: Store, world: World, gpus: float) -> None:
    distributed.init_process_group(
        "nccl" if gpus else "gloo",
        store=store,
        rank=world.rank,
        world_size=world.size,
        timeout=_PATIENCE,
    )


def _watch(ends: Sequence[ray.ObjectRef], over: threading.Event) -> None:
    waiting = list(ends)
    while waiting and not over.is_set():
        done, waiting = ray.wait(waiting, timeout=1.0)
        for end in done:
            try:
                reason = ray.get(end)
            except RayActorError as error:
                if not over.is_set():
                    print(f"a worker of this trial is lost: {error}", file=sys.stderr, flush=True)
                    os._exit(_LOST)
                return
            except RayTaskError as error:
                reason = str(error.cause)
            # Rank 0 may wait for this one for ever, in the midst of a step.
            if reason and not over.wait(_SECONDS_FOR_RANK_0):
                try:
                    tune.report({"failure": reason})
                finally:
                    # Tune has taken note; rank 0 itself would wait on.
                    os._exit(_LOST)
