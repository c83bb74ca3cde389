"""What terminal, report and model card say alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEP_COLUMNS = ("step", "options", "best option", "Dice before", "with it", "gain", "p", "taken")


def count(number: int, noun: str) -> str:
    """Return how many there are of something, in the singular or the plural."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def step_rows(choice: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row a step of what `choice.json` holds, in the order of `STEP_COLUMNS`."""
    return [
        (
            step["name"],
            str(step["tried"]),
            step["best"],
            f"{step['dice_before']:.3f}",
            f"{step['dice_after']:.3f}",
            f"{step['gain']:+.3f}",
            f"{step['p']:.3f}",
            "yes" if step["taken"] else "no",
        )
        for step in choice["steps"]
    ]
