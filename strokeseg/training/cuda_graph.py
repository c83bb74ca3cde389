"""Training steps recorded once and played back.

A step of a small network is some thousand *kernels*, each of which a GPU has done before the CPU
has launched the next. A *recording* (a CUDA graph) launches all of them at once, over and over, on
the same memory: so what a step is given is copied to where it was recorded, and what it gives is
overwritten by the next one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Step: TypeAlias = Callable[[Tensor, Tensor], dict[str, Tensor]]

# As many as libraries need to choose their algorithms, and an optimiser to make its moments. In the
# last one it is seen whether the network can be recorded.
_LIVE_STEPS = 3


def ready_for_recording(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let an optimiser look for its learning rate on the GPU, or not if the device is none."""
    recorded = device.type == "cuda"
    for group in optimiser.param_groups:
        rate = float(group["lr"])
        group["lr"] = torch.full((), rate, device=device) if recorded else rate
        group["capturable"] = recorded


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set an optimiser's learning rate where it looks for it."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Recording:
    """A step that is played back from its fourth time on.

    Batches of another shape than the first one's are always learned from live, and so are all where
    a network waits for its own results, which no recording can.

    Args:
        generator: What the step draws from besides torch's own generator.
    """

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self._generator = generator
        self._device = device
        self._live = 0
        self._waits = False
        self._given: tuple[Tensor, Tensor] | None = None
        self._gives: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None

    def take(self, step: Step, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Take a step, always the same one.

        Args:
            step: From images and masks to named numbers, all of them on the GPU; whatever else it
                needs must be in memory that stays where it is.
            images: (B, C, H, W).
            masks: (B, 1, H, W).

        Returns:
            The step's numbers, until the next one is taken.
        """
        if self._given is None:
            self._given = torch.empty_like(images), torch.empty_like(masks)
        if self._waits or images.shape != self._given[0].shape:
            return step(images, masks)
        for place, given in zip(self._given, (images, masks), strict=True):
            place.copy_(given)
        if self._graph is not None:
            self._graph.replay()
            return self._gives
        self._live += 1
        if self._live < _LIVE_STEPS:
            return self._aside(step, self._given)
        with _waits_noted() as waits:
            gives = self._aside(step, self._given)
        if waits:
            self._waits = True
            _log.warning("this network waits for its own results, so its steps are not recorded")
        else:
            self._graph = self._record(step, self._given)
        return gives

    def _aside(self, step: Step, given: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        here, aside = torch.cuda.current_stream(self._device), _stream(self._device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            gives = step(*given)
        here.wait_stream(aside)
        return gives

    def _record(self, step: Step, given: tuple[Tensor, Tensor]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        stream = _stream(self._device)
        # Threads that read slices ahead may go on using the GPU.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._gives = step(*given)
        return graph


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream besides torch's own, on which nothing can be recorded.

    One for all trainings: libraries keep memory to work in for every stream that they have seen.
    """
    # Its type is not declared.
    stream: Any = torch.cuda.Stream
    made: torch.cuda.Stream = stream(device)
    return made


@contextmanager
def _waits_noted() -> Iterator[list[warnings.WarningMessage]]:
    """Note each time that the CPU waits for the GPU, for as long as the block takes."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="called a synchronizing")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield noted
        finally:
            torch.cuda.set_sync_debug_mode("default")
