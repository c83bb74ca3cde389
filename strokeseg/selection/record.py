"""How an ensemble was chosen, as `choice.json` keeps it and as the terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strokeseg.records.phrases import count
from strokeseg.selection.scores import Choice
from strokeseg.selection.significance import SIGNIFICANT_P, smallest_p
from strokeseg.selection.steps import LeftOut, Step

TEST = (
    "paired sign-flip test over patients of the best option's mean gain, by the maximum over all "
    "options of the step of their standardised means (Westfall and Young), one-sided"
)
CAVEAT = (
    "The patients that decided here also chose the trials, so these Dice flatter the ensemble. "
    "Each step was tested by itself: with several steps the chance that one is taken by luck is "
    "higher than the p of each. The figures with each patient left out repeat the steps, not the "
    "search. Only the test set tells how well the ensemble does."
)
K_FOLD_CAVEAT = (
    "With k-fold scoring a patient was shown to one member of each trial, the one that had not "
    "been trained on this patient; in the ensemble all of them vote."
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of choosing.

    Attributes:
        method: `guard`, `best` or `vote`.
        start: The vote as it starts.
        chosen: What is promoted.
        steps: What was tried; empty by `vote`.
        patients: Number of validation patients that decided.
        cases: Number of their cases.
        dice_start: Mean 3D Dice of `start` over them.
        dice_chosen: That of `chosen`.
        left_out: The same with each patient left out in turn.
        k_fold: Whether members predicted only the folds that they had not seen.
    """

    method: str
    start: Choice
    chosen: Choice
    steps: Sequence[Step] = ()
    patients: int = 0
    cases: int = 0
    dice_start: float | None = None
    dice_chosen: float | None = None
    left_out: LeftOut | None = None
    k_fold: bool = False

    @property
    def guard_is_powerless(self) -> bool:
        """Whether so few patients cannot support any step."""
        return self.method == "guard" and smallest_p(self.patients) > SIGNIFICANT_P


def as_values(outcome: Outcome, candidates: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return what `choice.json` says, as plain values."""
    return {
        "method": outcome.method,
        "patients": outcome.patients,
        "cases": outcome.cases,
        "candidates": {axis: list(names) for axis, names in candidates.items()},
        "start": _choice_values(outcome.start),
        "chosen": _choice_values(outcome.chosen),
        "dice_start": outcome.dice_start,
        "dice_chosen": outcome.dice_chosen,
        "steps": [
            {
                "name": step.name,
                "tried": step.tried,
                "best": step.best,
                "dice_before": step.dice_before,
                "dice_after": step.dice_after,
                "gain": step.gain,
                "p": step.p,
                "taken": step.taken,
            }
            for step in outcome.steps
        ],
        "left_out": outcome.left_out
        and {"dice_start": outcome.left_out.start, "dice_chosen": outcome.left_out.chosen},
        "test": TEST,
        "significant_p": SIGNIFICANT_P,
        "smallest_p": smallest_p(outcome.patients) if outcome.patients else None,
        "caveat": f"{CAVEAT} {K_FOLD_CAVEAT}" if outcome.k_fold else CAVEAT,
    }


def sentences(outcome: Outcome) -> list[str]:
    """Say what came of choosing, a sentence a line."""
    if outcome.method == "vote":
        return ["Nothing was chosen: ensemble.choose is vote"]
    lines = []
    if outcome.guard_is_powerless:
        lines.append(
            f"The plain vote stays: {count(outcome.patients, 'patient')} cannot support any "
            f"step (p is {smallest_p(outcome.patients):.3g} at least, "
            f"{SIGNIFICANT_P:g} at most is asked for)"
        )
    lines.append(
        f"Mean 3D Dice over {count(outcome.patients, 'validation patient')}: "
        f"{outcome.dice_start:.3f} as it started, {outcome.dice_chosen:.3f} as promoted; these "
        "patients chose the trials, so both flatter"
    )
    if outcome.left_out is not None:
        lines.append(
            f"With each patient left out of the steps and scored by their result: "
            f"{outcome.left_out.start:.3f} as it started, {outcome.left_out.chosen:.3f} as chosen"
        )
    return lines


def _choice_values(choice: Choice) -> dict[str, Any]:
    members: dict[str, list[str]] = {}
    for axis, name in choice.members:
        members.setdefault(axis, []).append(name)
    return {"members": members, "rule": choice.rule.model_dump(mode="json")}
