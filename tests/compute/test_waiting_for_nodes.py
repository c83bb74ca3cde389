"""Where no autoscaler says that the cluster may grow, a search reckons with the nodes that live."""

from __future__ import annotations

import pytest

from strokeseg.compute.allotment import cluster_nodes
from strokeseg.compute.autoscaling import await_node, may_grow


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_a_cluster_without_an_autoscaler_is_not_waited_for(gpus: float) -> None:
    notes: list[str] = []
    assert not may_grow()
    assert await_node(gpus, notes.append) == cluster_nodes()
    assert notes == []
