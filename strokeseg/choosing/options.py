"""What may be changed about a choice, one *step* of changes after another.

Every step proposes *options*, each a whole choice with a few words on what it is, and starts
from what the steps before it left.

Source:
    Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble selection from libraries of models,
    ICML 2004 (greedy forward selection; here without replacement).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from strokeseg.choosing.scores import LOWEST_THRESHOLD, Choice
from strokeseg.imaging.voting import Between, Within
from strokeseg.learning.ensemble_record import Rule

# By axis, the names of its candidates, best first.
Candidates = Mapping[str, Sequence[str]]
MeanDice = Callable[[Choice], float]

_THRESHOLDS = tuple(round(LOWEST_THRESHOLD + 0.05 * step, 2) for step in range(17))
_SMALLEST_MM3 = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_WEIGHT_POWERS = (1, 2, 4)
_BETWEEN: tuple[Between, ...] = ("hard", "soft")
_WITHIN: tuple[Within, ...] = ("mean", "vote")
# An axis that finds nothing still weighs something, since a weight must be above 0.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class Option:
    """A choice that is proposed, and what it is in words."""

    words: str
    choice: Choice


def best_of_each_axis(candidates: Candidates, count: int) -> tuple[tuple[str, str], ...]:
    """The members of a choice that takes the `count` best candidates of every axis."""
    return tuple((axis, name) for axis, names in candidates.items() for name in names[:count])


def member_counts(current: Choice, candidates: Candidates, mean_dice: MeanDice) -> Iterator[Option]:
    """Other numbers of members an axis, which decide within it by their mean or by vote."""
    for count in range(1, max(map(len, candidates.values()), default=0) + 1):
        # One member alone says the same by its mean and by its vote.
        for within in _WITHIN if count > 1 else _WITHIN[:1]:
            rule = current.rule.model_copy(update={"within": within})
            yield Option(
                words=f"{count} an axis" + (f", {within} within it" if count > 1 else ""),
                choice=Choice(members=best_of_each_axis(candidates, count), rule=rule),
            )


def soft_vote(current: Choice, candidates: Candidates, mean_dice: MeanDice) -> Iterator[Option]:
    """The mean of the axes' probabilities instead of the majority of their masks."""
    rule = current.rule.model_copy(update={"between": "soft"})
    yield Option(words="mean of the axes' probabilities", choice=replace(current, rule=rule))


def axis_weights(current: Choice, candidates: Candidates, mean_dice: MeanDice) -> Iterator[Option]:
    """Axes that weigh by their own Dice: as it is, or made to differ more by a power of it."""
    dice = {
        axis: mean_dice(Choice(members=members, rule=current.rule))
        for axis, members in _by_axis(current).items()
    }
    if len(dice) < 2 or max(dice.values()) <= 0:
        return
    for power in _WEIGHT_POWERS:
        weights = {
            axis: max(round((score / max(dice.values())) ** power, 4), _LEAST_WEIGHT)
            for axis, score in dice.items()
        }
        for between in _BETWEEN:
            rule = current.rule.model_copy(update={"axis_weights": weights, "between": between})
            shown = ", ".join(f"{axis} {weight:.2f}" for axis, weight in weights.items())
            yield Option(words=f"{between}, {shown}", choice=replace(current, rule=rule))


def forward_selection(
    current: Choice, candidates: Candidates, mean_dice: MeanDice
) -> Iterator[Option]:
    """Every set that greedy selection looks at: the best candidate first, then each next best."""
    order = best_of_each_axis(candidates, max(map(len, candidates.values()), default=0))
    for between in _BETWEEN:
        rule = current.rule.model_copy(update={"between": between})
        chosen: set[tuple[str, str]] = set()
        while len(chosen) < len(order):
            proposed = [
                Option(
                    words=f"{between}, {', '.join(name for _, name in members)}",
                    choice=Choice(members=members, rule=_weighing_members_only(rule, members)),
                )
                for new in order
                if new not in chosen
                for members in [tuple(one for one in order if one in chosen or one == new)]
            ]
            yield from proposed
            chosen.update(max(proposed, key=lambda option: mean_dice(option.choice)).choice.members)


def thresholds(current: Choice, candidates: Candidates, mean_dice: MeanDice) -> Iterator[Option]:
    """Other probabilities from which a voxel is lesion, 0.1 to 0.9."""
    for threshold in _THRESHOLDS:
        rule = current.rule.model_copy(update={"threshold": threshold})
        yield Option(words=f"{threshold:g}", choice=replace(current, rule=rule))


def smallest_lesions(
    current: Choice, candidates: Candidates, mean_dice: MeanDice
) -> Iterator[Option]:
    """Volumes below which a lesion is not believed, 5 to 1,000 cubic millimetres."""
    for smallest in _SMALLEST_MM3:
        rule = current.rule.model_copy(update={"smallest_lesion_mm3": smallest})
        yield Option(words=f"{smallest:g} mm³", choice=replace(current, rule=rule))


OptionsOf = Callable[[Choice, Candidates, MeanDice], Iterator[Option]]
STEPS: Mapping[str, OptionsOf] = {
    "members an axis": member_counts,
    "soft vote": soft_vote,
    "axis weights": axis_weights,
    "forward selection": forward_selection,
    "threshold": thresholds,
    "smallest lesion": smallest_lesions,
}


def _weighing_members_only(rule: Rule, members: Sequence[tuple[str, str]]) -> Rule:
    axes = {axis for axis, _ in members}
    weights = {axis: weight for axis, weight in rule.axis_weights.items() if axis in axes}
    return rule.model_copy(update={"axis_weights": weights})


def _by_axis(choice: Choice) -> dict[str, tuple[tuple[str, str], ...]]:
    axes = dict.fromkeys(axis for axis, _ in choice.members)
    return {axis: tuple(one for one in choice.members if one[0] == axis) for axis in axes}
