"""What may be changed about a choice, one *step* of changes after another.

Every step proposes *options*, each a whole choice with a few words on what it is, and starts
from what the steps before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from strokeseg.imaging.voting import Within
from strokeseg.selection.scores import LOWEST_THRESHOLD, Choice

# By axis, the names of its candidates, best first.
Candidates = Mapping[str, Sequence[str]]

_THRESHOLDS = tuple(round(LOWEST_THRESHOLD + 0.05 * step, 2) for step in range(17))
_SMALLEST_MM3 = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_WITHIN: tuple[Within, ...] = ("mean", "vote")


@dataclass(frozen=True, kw_only=True)
class Option:
    """A choice that is proposed, and what it is in words."""

    words: str
    choice: Choice


def best_of_each_axis(candidates: Candidates, count: int) -> tuple[tuple[str, str], ...]:
    """The members of a choice that takes the `count` best candidates of every axis."""
    return tuple((axis, name) for axis, names in candidates.items() for name in names[:count])


def member_counts(current: Choice, candidates: Candidates) -> Iterator[Option]:
    """Other numbers of members an axis, which decide within it by their mean or by vote."""
    for count in range(1, max(map(len, candidates.values()), default=0) + 1):
        # One member alone says the same by its mean and by its vote.
        for within in _WITHIN if count > 1 else _WITHIN[:1]:
            rule = current.rule.model_copy(update={"within": within})
            yield Option(
                words=f"{count} an axis" + (f", {within} within it" if count > 1 else ""),
                choice=Choice(members=best_of_each_axis(candidates, count), rule=rule),
            )


def soft_vote(current: Choice, candidates: Candidates) -> Iterator[Option]:
    """The mean of the axes' probabilities instead of the majority of their masks."""
    rule = current.rule.model_copy(update={"between": "soft"})
    yield Option(words="mean of the axes' probabilities", choice=replace(current, rule=rule))


def thresholds(current: Choice, candidates: Candidates) -> Iterator[Option]:
    """Other probabilities from which a voxel is lesion, 0.1 to 0.9."""
    for threshold in _THRESHOLDS:
        rule = current.rule.model_copy(update={"threshold": threshold})
        yield Option(words=f"{threshold:g}", choice=replace(current, rule=rule))


def smallest_lesions(current: Choice, candidates: Candidates) -> Iterator[Option]:
    """Volumes below which a lesion is not believed, 5 to 1,000 cubic millimetres."""
    for smallest in _SMALLEST_MM3:
        rule = current.rule.model_copy(update={"smallest_lesion_mm3": smallest})
        yield Option(words=f"{smallest:g} mm³", choice=replace(current, rule=rule))


OptionsOf = Callable[[Choice, Candidates], Iterator[Option]]
STEPS: Mapping[str, OptionsOf] = {
    "members an axis": member_counts,
    "soft vote": soft_vote,
    "threshold": thresholds,
    "smallest lesion": smallest_lesions,
}
