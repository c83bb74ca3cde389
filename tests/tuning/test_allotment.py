"""A cluster is divided among trials, whose processes never ask for more than it has."""

from __future__ import annotations

import pytest

from strokeseg.errors import UserError
from strokeseg.tuning.allotment import Allotment, Node, allot


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


def test_a_trial_of_several_gpus_has_a_worker_for_each_wherever_they_are() -> None:
    # Three nodes of two GPUs and eight CPUs: one trial of four GPUs, two GPUs left over; eight
    # CPUs serve two workers of a node.
    nodes = [Node(cpus=8, gpus=2)] * 3
    expected = Allotment(cpus=8, gpus=1, concurrent=1, workers=4)
    # Four workers may lie on three nodes, with eight CPUs for one worker of each of two nodes and
    # four for each of the others: all get what the fullest node can give.
    assert allot(nodes, 5, 4.0) == Allotment(**{**vars(expected), "cpus": 4})
    assert allot(nodes, 5, 4.0).devices == 4
    assert allot(nodes, 5, 3.0).concurrent == 2


def test_workers_on_cpus_are_as_many_as_asked_for() -> None:
    assert allot([Node(cpus=8)], 9, 0.0, 2) == Allotment(cpus=1, gpus=0, concurrent=4, workers=2)
    assert allot([Node(cpus=8)], 1, 0.0, 2) == Allotment(cpus=4, gpus=0, concurrent=1, workers=2)
    assert allot([Node(cpus=2)] * 2, 9, None, 4).concurrent == 1


@pytest.mark.parametrize(
    ("nodes", "asked", "workers", "fault"),
    [
        ([Node(cpus=2)], 1.0, None, "has 0 GPUs and 2 CPUs, none fits; ask for 0"),
        ([Node(cpus=2, gpus=0.5)], 1.0, None, "has 0.5 GPUs"),
        ([Node(cpus=64, gpus=2)], 4.0, None, "at most 2 fit, with a CPU each; ask for that"),
        ([Node(cpus=1, gpus=4)], 4.0, None, "at most 1 fit"),
        ([Node(cpus=2, gpus=4)], 1.5, None, "or a whole number"),
        ([Node(cpus=2, gpus=1)], -0.5, None, "gpus-per-trial"),
        ([Node(cpus=2, gpus=1)], float("nan"), None, "gpus-per-trial"),
        ([Node(cpus=2, gpus=1)], float("inf"), None, "gpus-per-trial"),
        ([Node(cpus=2)], None, 3, "room for 2 workers of a CPU each"),
        ([Node(cpus=2)], None, 0, "workers-per-trial 0"),
        ([Node(cpus=9, gpus=2)], 1.0, 2, "one for each"),
        ([], None, None, "too few for a trial"),
        ([Node(cpus=0)], None, None, "too few for a trial"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused_with_what_would_fit(
    nodes: list[Node], asked: float | None, workers: int | None, fault: str
) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        allot(nodes, 4, asked, workers)
    assert "\n" not in str(caught.value)


def test_nodes_to_come_count_like_those_that_live() -> None:
    nodes = [Node(cpus=2), Node(cpus=16, gpus=4), Node(cpus=16, gpus=4, to_come=True)]
    assert allot(nodes, 20, None) == Allotment(cpus=4, gpus=1, concurrent=8)
    with pytest.raises(UserError, match="has or may yet start 8 GPUs and 34 CPUs, at most 8 fit"):
        allot(nodes, 20, 9.0)
