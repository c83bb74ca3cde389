"""A cluster is divided among trials, which never ask for more than it has."""

from __future__ import annotations

import pytest

from strokeseg.compute.allotment import Allotment, Node, allot
from strokeseg.errors import UserError
from strokeseg.search import main as search


@pytest.mark.parametrize(
    ("nodes", "trials", "asked", "expected"),
    [
        # CPUs only: one thread a trial, as many trials as CPUs.
        ([Node(cpus=2)], 6, None, (1, 0, 2)),
        ([Node(cpus=1)], 6, None, (1, 0, 1)),
        # More CPUs than trials: they are shared out, the rest stays idle.
        ([Node(cpus=8)], 2, None, (4, 0, 2)),
        ([Node(cpus=8)], 3, None, (2, 0, 3)),
        ([Node(cpus=16)], 1, None, (16, 0, 1)),
        # A trial runs on one node: two trials on four nodes of four CPUs get four each.
        ([Node(cpus=4)] * 4, 2, None, (4, 0, 2)),
        # A GPU a trial where there are any.
        ([Node(cpus=16, gpus=2)], 6, None, (8, 1, 2)),
        ([Node(cpus=16, gpus=2)], 1, None, (16, 1, 1)),
        # More GPUs than CPUs: every trial needs a CPU.
        ([Node(cpus=2, gpus=4)], 6, None, (1, 1, 2)),
        # GPUs where there are few CPUs: 2 fit beside the one GPU's node, 8 on the other.
        ([Node(cpus=2, gpus=1), Node(cpus=32, gpus=3)], 9, None, (2, 1, 4)),
        # A head without GPUs does not train.
        ([Node(cpus=64), Node(cpus=8, gpus=2)], 9, None, (4, 1, 2)),
        # Fractions: 2 / 0.5 = 4 trials, 1 / 0.3 = 3 whole ones, and one of 0.6 on each of two.
        ([Node(cpus=16, gpus=2)], 9, 0.5, (4, 0.5, 4)),
        ([Node(cpus=16, gpus=1)], 9, 0.3, (5, 0.3, 3)),
        ([Node(cpus=16, gpus=2)], 9, 0.6, (8, 0.6, 2)),
        # None wanted though there are some.
        ([Node(cpus=4, gpus=1)], 4, 0.0, (1, 0, 4)),
    ],
)
def test_a_cluster_is_divided_among_the_trials(
    nodes: list[Node], trials: int, asked: float | None, expected: tuple[int, float, int]
) -> None:
    cpus, gpus, concurrent = expected
    assert allot(nodes, trials, asked) == Allotment(cpus=cpus, gpus=gpus, concurrent=concurrent)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.05])
def test_fractions_that_fill_a_gpu_are_not_lost_to_rounding(share: float) -> None:
    whole = round(1 / share)
    assert allot([Node(cpus=64, gpus=1)], 64, share).concurrent == whole
    assert allot([Node(cpus=64, gpus=3)], 64, share).concurrent == 3 * whole


@pytest.mark.parametrize(
    ("nodes", "asked", "fault"),
    [
        ([Node(cpus=2)], 1.0, "has 0 GPUs and 2 CPUs, none fits; ask for 0"),
        ([Node(cpus=2, gpus=0.5)], 1.0, "has 0.5 GPUs"),
        ([Node(cpus=2), Node(cpus=0, gpus=1)], 0.5, "has 1 GPUs and 2 CPUs, none fits"),
        ([], None, "too few for a trial"),
        ([Node(cpus=0)], None, "too few for a trial"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused_in_one_line(
    nodes: list[Node], asked: float | None, fault: str
) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        allot(nodes, 4, asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gpus", ["4", "1.5", "-0.5", "nan", "inf"])
def test_more_than_one_gpu_a_trial_is_refused_in_one_line(
    gpus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        search(["--axis", "axial", f"--gpus-per-trial={gpus}"])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "must be from 0 to 1" in output and f"got {gpus}" in output
