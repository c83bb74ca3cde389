"""From the vote as it starts to the one that is promoted, step by step.

A step tries options (see `options`), finds the best, and *takes* it or leaves things as they
are. By the *guard* it is taken only if luck is improbable (see `significance`); by *best*,
whenever it is better. Either way the validation patients that decide are those that chose the
trials before, so what the steps bring is reported twice: on these patients, and on each of them
*left out* in turn, with all steps repeated without that patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strokeseg.selection.options import STEPS, Candidates, Option
from strokeseg.selection.scores import Choice, PatientScores
from strokeseg.selection.significance import SIGNIFICANT_P, best_option, smallest_p

Method: TypeAlias = Literal["guard", "best"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step tried and brought.

    Attributes:
        name: The step's.
        tried: Number of options.
        best: The best of them in words.
        dice_before: Mean 3D Dice over the patients before the step.
        dice_after: That of the best option, whether it was taken or not.
        p: Chance of so high a gain by the best of all options, were none better.
        taken: Whether the best option took the place of what there was.
    """

    name: str
    tried: int
    best: str
    dice_before: float
    dice_after: float
    p: float
    taken: bool

    @property
    def gain(self) -> float:
        """What the best option was better by."""
        return self.dice_after - self.dice_before


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Mean Dice over patients that had no part in the steps, each left out in turn.

    Attributes:
        start: Of the vote as it starts.
        chosen: Of what the steps made of it without the patient.
    """

    start: float
    chosen: float


def take_steps(
    scores: PatientScores,
    start: Choice,
    candidates: Candidates,
    method: Method,
    patients: Sequence[int] | None = None,
) -> tuple[Choice, list[Step]]:
    """Take the steps, one after the other.

    Args:
        scores: Of all validation patients.
        start: Where the first step starts.
        candidates: Among which to choose.
        method: When a step is taken.
        patients: Positions of the patients that decide; None for all.

    Returns:
        What is chosen in the end, and each step that had anything to try.
    """
    deciding = list(range(len(scores.patients)) if patients is None else patients)

    def dice(choice: Choice) -> NDArray[np.float64]:
        return scores.of(choice)[deciding]

    current, steps = start, []
    for name, options_of in STEPS.items():
        options = [option for option in options_of(current, candidates) if option.choice != current]
        if not options:
            continue
        step, best = _try_options(name, current, options, dice, method)
        steps.append(step)
        current = best if step.taken else current
    return current, steps


def _try_options(
    name: str,
    current: Choice,
    options: Sequence[Option],
    dice: Callable[[Choice], NDArray[np.float64]],
    method: Method,
) -> tuple[Step, Choice]:
    """Compare options with what there is; return the step and the best option's choice."""
    before = dice(current)
    found = best_option(np.stack([dice(option.choice) for option in options]) - before)
    best = options[found.index]
    step = Step(
        name=name,
        tried=len(options),
        best=best.words,
        dice_before=float(before.mean()),
        dice_after=float(dice(best.choice).mean()),
        p=found.p,
        taken=found.gain > 0 and (method == "best" or found.p <= SIGNIFICANT_P),
    )
    return step, best.choice


def leave_each_out(
    scores: PatientScores, start: Choice, candidates: Candidates, method: Method
) -> LeftOut | None:
    """Repeat the steps without each patient and score what comes out on that patient alone.

    Returns:
        The means over the patients; None for one patient alone, or where the others are too
        few to support any step.
    """
    count = len(scores.patients)
    if count < 2 or (method == "guard" and smallest_p(count - 1) > SIGNIFICANT_P):
        return None
    chosen = [
        scores.of(take_steps(scores, start, candidates, method, others)[0])[patient]
        for patient in range(count)
        for others in [[other for other in range(count) if other != patient]]
    ]
    return LeftOut(start=float(scores.of(start).mean()), chosen=float(np.mean(chosen)))
