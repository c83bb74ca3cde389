"""What one epoch of a training gave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: Its number, from 1.
        dice: Mean 3D Dice over the validation cases, 0 to 1.
        case_dice: Each validation case's own 3D Dice, by the case's name.
        losses: Means over the epoch's slices: `total`, and every term that has a weight.
        learning_rate: Of the epoch's last step.
        seconds: Wall time with validation.
        train_seconds: Wall time without it.
        data_seconds: The part of `train_seconds` spent on gathering slices.
        slices: Slices trained on.
        memory_gb: The most memory held so far, 10^9 bytes: of torch's on a GPU, of the whole
            process elsewhere.
    """

    epoch: int
    dice: float
    case_dice: dict[str, float]
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    train_seconds: float
    data_seconds: float
    slices: int
    memory_gb: float
