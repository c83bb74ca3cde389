"""How many trials share a GPU: measured on one, before the first trial (`gpu_sharing`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from strokeseg.compute.allotment import Node
from strokeseg.tuning.space import Space

_log = logging.getLogger(__name__)

_MOST_TRIALS = 8


def measured_share(
    nodes: Sequence[Node], spaces: Sequence[Space], trials: int, shape: tuple[int, int, int]
) -> float | None:
    """Return the share of a GPU that each trial should get.

    Args:
        nodes: What the cluster has.
        spaces: What the trials will try.
        shape: Channels, height and width of the slices.

    Returns:
        1, 1/2, 1/4 or 1/8; None where there are no GPUs.

    Raises:
        UserError: When no whole GPU is free to measure on.
    """
    with_gpus = [node for node in nodes if node.gpus >= 1]
    if not with_gpus:
        return None
    gpus = sum(int(node.gpus) for node in with_gpus)
    # Every trial needs a CPU, wherever it runs.
    cpus = min(node.cpus // int(node.gpus) for node in with_gpus)
    most = min(_MOST_TRIALS, cpus, trials // gpus)
    if most < 2:
        _log.info("packing: %d trials on %d GPUs with %d CPUs each: one a GPU", trials, gpus, cpus)
        return 1.0
    # PyTorch, where there is a GPU to measure on.
    from strokeseg.tuning.gpu_sharing import best_trial_count, measure_sharing  # noqa: PLC0415

    memory, throughputs = measure_sharing(spaces, shape, most, device="cuda")
    best = best_trial_count(throughputs)
    _log.info(
        "packing: the largest trial takes %.1f of %.1f GB; %s: %g GPUs a trial",
        memory.trial_bytes / 1e9,
        memory.device_bytes / 1e9,
        ", ".join(f"{one.trials} do {one.slices_per_second:.0f} slices/s" for one in throughputs),
        1 / best,
    )
    return 1 / best
