"""How exactly a device computes.

*Reduced* precision is 16 bits for what stands that (convolutions, not losses): bfloat16 where a
GPU or a CPU multiplies it, float16 on other GPUs, whose gradients are scaled up lest they vanish.
*Full* precision is float32, and the only one on other CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST_GRADIENT = 1.0


# CPUs that multiply bfloat16 train ResNets nearly twice as fast in it; see
# benchmarks/README.md. Others only imitate it.
_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@cache
def cpu_flags() -> frozenset[str]:
    """Return what this machine's CPUs can do, as Linux calls it; elsewhere nothing is known."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def reduced_type(device: torch.device, network: nn.Module) -> torch.dtype | None:
    """Return the 16-bit type that a device trains a network fast in, or None for float32."""
    if device.type == "cpu":
        # Convolutions by group, as EfficientNets have them, gain nothing on a CPU.
        grouped = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())
        return None if grouped or not _CPU_FLAGS & cpu_flags() else torch.bfloat16
    # Older GPUs imitate bfloat16, slowly.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16


def compute_deterministically(wanted: bool) -> None:
    """Let torch add in a fixed order from here on, or in the fastest one.

    An operation that knows no fixed order raises a RuntimeError then.
    """
    if wanted:
        # cuBLAS looks for this when it is first used.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(wanted)


def autocast(device: torch.device, kind: torch.dtype | None) -> torch.autocast:
    """Compute in a reduced type where one is given."""
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


class Stepper:
    """One optimiser's steps, in reduced precision or in full.

    Args:
        optimiser: Its parameters are what is learned.
        device: Where they are.
        kind: The reduced type, or None for full precision.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, device: torch.device, kind: torch.dtype | None
    ) -> None:
        self.kind = kind
        self._optimiser = optimiser
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)

    def autocast(self) -> torch.autocast:
        """Compute the network's output in this precision."""
        return autocast(self._device, self.kind)

    def step(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Take one step down a scalar loss, with gradients of norm 1 at most.

        In float16 a step whose scaled gradients overflow is left out, and the scale lowered.
        """
        parameters = list(parameters)
        self._optimiser.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        self._scaler.step(self._optimiser)
        self._scaler.update()

    def overflows(self) -> bool:
        """Whether even unscaled gradients overflow in float16."""
        return self._scaler.is_enabled() and self._scaler.get_scale() < 1

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: plain values."""
        return {"reduced": self.kind is not None, "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as the state's stepper would have."""
        if not state["reduced"]:
            self.kind = None
            self._scaler = torch.amp.GradScaler(self._device.type, enabled=False)
        elif self._scaler.is_enabled() and state["scaler"]:
            # A scaler that scaled nothing, in bfloat16 on another GPU, has no state.
            self._scaler.load_state_dict(state["scaler"])
