"""How exactly a device computes.

*Reduced* precision is 16 bits for what stands that (convolutions, not losses): bfloat16 where a
GPU has it, float16 elsewhere, whose gradients are scaled up lest they vanish. *Full* precision
is float32, the only one on CPUs, where 16 bits were not faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST_GRADIENT = 1.0


@cache
def reduced_type(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that a device computes fast in, or nothing where there is none."""
    if device.type != "cuda":
        return None
    # Older GPUs imitate bfloat16, slowly.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16


def autocast(device: torch.device, kind: torch.dtype | None) -> torch.autocast:
    """Compute in a reduced type where one is given."""
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


class Stepper:
    """One optimiser's steps, in reduced precision or in full.

    Args:
        optimiser: Its parameters are what is learned.
        device: Where they are.
        kind: The reduced type, or nothing for full precision.
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
        elif self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
