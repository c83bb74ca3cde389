"""How many trials share a GPU follows from what they need and what they do side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from strokeseg.compute.allotment import Node
from strokeseg.records.config import TrialConfig
from strokeseg.tuning.gpu_sharing import Throughput, best_trial_count, largest_configurations
from strokeseg.tuning.packing import measured_share
from strokeseg.tuning.space import Space

SHAPE = (4, 32, 32)
BASE = Path(__file__).resolve().parents[2] / "search_spaces" / "axial.yaml"

# Ray believes in a GPU; what is measured there is real, on this machine's CPUs.
MEASURE = """
import json, time
import ray
from strokeseg.tuning import gpu_sharing
from strokeseg.tuning.space import Dimension, Space

ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
gpu_sharing._SECONDS = 0.5
gpu_sharing._WORTH = 0.0
space = Space(dimensions={
    "encoder": Dimension(choices=("resnet18",)),
    "encoder_depth": Dimension(value=3),
    "batch_size": Dimension(choices=(2, 4)),
}, first=())
memory, throughputs = gpu_sharing.measure_sharing([space], (4, 32, 32), 2, device="cpu")
end = time.monotonic() + 30
while (free := ray.available_resources()).get("GPU") != 1 and time.monotonic() < end:
    time.sleep(0.1)
print(json.dumps({
    "trial": memory.trial_bytes, "device": memory.device_bytes, "gpus": free.get("GPU"),
    "throughputs": [[one.trials, one.slices_per_second] for one in throughputs],
}))
"""


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        pytest.param([100], 1, id="one alone"),
        pytest.param([100, 109], 1, id="9 % more is not worth it"),
        pytest.param([100, 111], 2, id="11 % more is"),
        pytest.param([100, 180, 250, 260], 4, id="until doubling brings 4 %"),
        pytest.param([100, 90, 300], 1, id="a gain behind a loss is noise"),
    ],
)
def test_trials_are_doubled_for_as_long_as_that_pays(rates: list[float], best: int) -> None:
    throughputs = [Throughput(trials=2**n, slices_per_second=rate) for n, rate in enumerate(rates)]
    assert best_trial_count(throughputs) == best


@pytest.mark.parametrize(
    ("nodes", "trials", "share"),
    [
        pytest.param([Node(cpus=8)], 10, None, id="no GPU"),
        pytest.param([Node(cpus=8, gpus=2)], 3, 1.0, id="fewer than two trials a GPU"),
        pytest.param([Node(cpus=3, gpus=2)], 10, 1.0, id="fewer than two CPUs a GPU"),
    ],
)
def test_nothing_is_measured_where_nothing_can_be_shared(
    nodes: list[Node], trials: int, share: float | None, shipped_space: Callable[[Path], Space]
) -> None:
    assert measured_share(nodes, [shipped_space(BASE)], trials, SHAPE) == share


def test_the_largest_configurations_are_the_deepest_with_the_largest_batches(
    shipped_space: Callable[[Path], Space],
) -> None:
    space = shipped_space(BASE)
    points = largest_configurations([space])
    assert [point.encoder for point in points] == list(space.dimensions["encoder"].extremes)
    assert {(point.encoder_depth, point.batch_size) for point in points} == {(5, 32)}


def test_a_space_without_an_encoder_has_the_usual_one() -> None:
    assert largest_configurations([Space(dimensions={}, first=())]) == [TrialConfig()]


def test_trials_train_side_by_side_on_one_gpu_and_leave_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [trials for trials, _ in found["throughputs"]] == [1, 2]
    assert all(rate > 0 for _, rate in found["throughputs"])
    # A process that has imported torch has 100 MB at the very least.
    assert 100e6 < found["trial"] < found["device"]
    assert found["gpus"] == 1.0
