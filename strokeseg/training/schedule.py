"""The learning rate over a training."""

from __future__ import annotations

import math

_WARM_UP = 0.05
_LAST_RATE = 0.01


def rate_factor(step: int, steps: int) -> float:
    """Return a step's share of the peak learning rate.

    It grows in a straight line over the first 5 % of the steps, then falls along half a
    cosine to 1 % at the last step.

    Args:
        step: The step's number over all epochs, from 0.
        steps: Steps of all epochs.
    """
    warm_up = max(1, round(steps * _WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up + 1) / (steps - warm_up)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
