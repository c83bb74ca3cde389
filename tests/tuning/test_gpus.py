"""What a trial does before it uses its GPU."""

from __future__ import annotations

import pytest
import torch

from strokeseg.errors import DeviceError
from strokeseg.tuning.gpus import leave_broken_gpu, take_gpu


def test_a_gpu_that_does_not_compute_is_reported_with_its_node() -> None:
    if torch.cuda.is_available():
        pytest.skip("torch finds a GPU here")
    with pytest.raises(DeviceError, match=r"^node .*: torch cannot compute on the GPU .*\(.+\)"):
        take_gpu()
    # Nothing broke in this process, which has used none.
    leave_broken_gpu()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_an_earlier_trial_left_on_the_gpu_is_free_for_the_next() -> None:
    torch.empty(1 << 28, device="cuda")
    assert torch.cuda.memory_reserved() >= 1 << 30
    take_gpu()
    assert torch.cuda.memory_reserved() < 1 << 30
    leave_broken_gpu()
