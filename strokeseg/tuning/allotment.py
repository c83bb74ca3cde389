"""Who gets what: a cluster's CPUs and GPUs divided among the trials of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strokeseg.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """What a trial gets, and how many run at once.

    Attributes:
        cpus: CPUs, and threads, of a trial.
        gpus: GPUs, or a fraction of one.
        concurrent: Trials at once.
    """

    cpus: int
    gpus: float
    concurrent: int


def allot(
    resources: Mapping[str, float],
    largest_node_cpus: int,
    trials: int,
    gpus_per_trial: float | None,
) -> Allotment:
    """Divide a cluster among the trials that are still to run.

    Without GPUs, one-thread trials side by side do more than one trial of many threads, so
    trials get more than one CPU only when there are more CPUs than trials.

    Args:
        resources: Ray's totals, `CPU` and `GPU`.
        largest_node_cpus: CPUs of the largest node, since a trial runs on one node.
        trials: Trials to run.
        gpus_per_trial: As asked for; nothing for one, or for none where there are none.

    Raises:
        UserError: When the cluster does not have what a trial asks for.
    """
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    wanted = gpus_per_trial if gpus_per_trial is not None else min(1.0, gpus)
    # Written so that NaN is refused as well.
    if not 0 <= wanted <= 1:
        raise UserError(
            f"--gpus-per-trial {wanted:g}: must be from 0 to 1; trials over several GPUs are not "
            "supported yet"
        )
    if wanted > gpus:
        raise UserError(
            f"--gpus-per-trial {wanted:g}: the cluster has {gpus:g} GPUs; ask for at most that, "
            "or for 0 to train on CPUs"
        )
    slots = int(gpus / wanted) if wanted else cpus
    if slots < 1 or cpus < 1:
        raise UserError(f"the cluster has {cpus} CPUs, too few for a trial; add a node")
    concurrent = max(1, min(slots, trials, cpus))
    return Allotment(
        cpus=max(1, min(cpus // concurrent, largest_node_cpus)), gpus=wanted, concurrent=concurrent
    )
