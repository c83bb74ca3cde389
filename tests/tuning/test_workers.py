"""A trial in several processes of a real Ray, one of which fails for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Of trial 0 the second process has no room, and the first still waits for it when Tune ends it.
SEARCH = """
import json, sys
from pathlib import Path

import optuna, ray
from ray import tune
from torch import distributed
from benchmarks.overhead import our_study
from benchmarks.stand_in import metrics_of
from strokeseg.tuning.allotment import Allotment
from strokeseg.tuning.running import _fit
from strokeseg.tuning.workers import world_of

EPOCHS = 2

def trial(proposal):
    alone = proposal["number"] == 0

    def follow(world):
        if alone:
            return "the second worker has no room"
        for _ in range(EPOCHS):
            distributed.barrier()

    with world_of(2, cpus=1, gpus=0, follow=follow):
        for epoch in range(1, EPOCHS + 1):
            distributed.barrier()
            tune.report(metrics_of(epoch))

optuna.logging.set_verbosity(optuna.logging.ERROR)
folder = Path(sys.argv[1])
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         _temp_dir=str(folder / "ray"))
allotment = Allotment(cpus=1, gpus=0, concurrent=1, workers=2)
trainable = tune.with_resources(trial, tune.PlacementGroupFactory([{"CPU": 1}] * 2))
with our_study(folder, 3, EPOCHS) as (ledger, searcher, monitor, experiment):
    scratch = experiment.search_folder("axial") / "tune"
    _fit(trainable, {"axial": ledger}, searcher, monitor, allotment, [scratch])
    print(json.dumps([(row.state, row.reason) for row in ledger.rows()]))
"""


def test_a_worker_that_fails_alone_costs_its_trial_and_no_other(
    said_in_own_ray: Callable[[str], Any],
) -> None:
    first, *others = said_in_own_ray(SEARCH)
    assert first == ["FAIL", "the second worker has no room"]
    assert [state for state, _ in others] == ["COMPLETE", "COMPLETE"]
