"""The methods that an ensemble is evaluated by, all from one prediction by each member.

Each member is a method of its own; the other methods are *votes*: a rule and the members that
it counts. The axes come out of the ensemble's own vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import Predictor
from strokeseg.imaging.voting import Decision
from strokeseg.records.ensemble import EnsembleRecord, MemberNames, Rule
from strokeseg.records.scores import Kind
from strokeseg.records.summary import VOTE


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A rule and the members that it counts.

    Attributes:
        method: Its name.
        kind: Of the method.
        rule: How the members' probabilities become one mask.
        members: Their names, without the files' ending.
    """

    method: str
    kind: Kind
    rule: Rule
    members: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodMasks:
    """The masks of one case by all methods.

    Attributes:
        masks: By method, (X, Y, Z) uint8, 0 or 1, on the case's native grid.
        kinds: By method.
        decision: The decision of the ensemble as promoted.
    """

    masks: dict[str, NDArray[np.uint8]]
    kinds: dict[str, Kind]
    decision: Decision


def votes_of(record: EnsembleRecord) -> list[Vote]:
    """Return the votes that an ensemble is evaluated by; its own is the first.

    `vote_hard` and `vote_soft` count the same members by the plain majority of the axes and by
    the mean of their probabilities, with small lesions; the comparisons are
    counted by the plain majority. All keep the ensemble's threshold.
    """
    hard = Rule(threshold=record.rule.threshold)
    soft = Rule(threshold=record.rule.threshold, between="soft")
    own = _names(record.members)
    return [
        Vote(method=VOTE, kind="vote", rule=record.rule, members=own),
        Vote(method=f"{VOTE}_hard", kind="vote", rule=hard, members=own),
        Vote(method=f"{VOTE}_soft", kind="vote", rule=soft, members=own),
        *(
            Vote(method=f"{VOTE}_{name}", kind="comparison", rule=hard, members=_names(members))
            for name, members in record.comparison.items()
        ),
    ]


def all_members(record: EnsembleRecord) -> dict[str, tuple[str, ...]]:
    """Return the file names of all members by axis, those of comparisons included, each once."""
    names: dict[str, dict[str, None]] = {}
    for members in (record.members, *record.comparison.values()):
        for axis, of_axis in members.items():
            names.setdefault(axis, {}).update(dict.fromkeys(of_axis))
    return {axis: tuple(of_axis) for axis, of_axis in names.items()}


def apply_methods(
    record: EnsembleRecord,
    maps: Iterable[tuple[Predictor, NDArray[np.float32]]],
    spacing_mm: tuple[float, float, float],
) -> MethodMasks:
    """Apply all methods to a case; each member's map counts in every vote of the member.

    Args:
        maps: Members and their probabilities, (X, Y, Z) float32, 0 to 1, on the native grid;
            every member once. No map is kept.
        spacing_mm: Voxel size along the maps' axes.
    """
    votes = votes_of(record)
    ballots = {vote.members: vote.rule.ballot() for vote in reversed(votes)}
    own: dict[str, NDArray[np.uint8]] = {}
    threshold = np.float32(record.rule.threshold)
    for predictor, probability in maps:
        own[predictor.name] = (probability >= threshold).astype(np.uint8)
        for members, ballot in ballots.items():
            if predictor.name in members:
                ballot.add(predictor.axis, probability)
    decisions = {members: ballot.decide(spacing_mm) for members, ballot in ballots.items()}
    decision = decisions[votes[0].members]
    voted = {VOTE: decision.mask}
    for vote in votes[1:]:
        means = decisions[vote.members].axis_probabilities
        voted[vote.method] = _recount(vote.rule, means, spacing_mm)
    kinds: dict[str, Kind] = dict.fromkeys(own, "member")
    kinds.update(dict.fromkeys(decision.axis_masks, "axis"))
    kinds.update({vote.method: vote.kind for vote in votes})
    return MethodMasks(
        masks={**decision.axis_masks, **voted, **own}, kinds=kinds, decision=decision
    )


def _recount(
    rule: Rule,
    means: Mapping[str, NDArray[np.float32]],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Decide by a rule that takes means within an axis, as all but an ensemble's own do."""
    ballot = rule.ballot()
    for axis, mean in means.items():
        ballot.add(axis, mean)
    return ballot.decide(spacing_mm).mask


def _names(members: MemberNames) -> frozenset[str]:
    return frozenset(
        name.removesuffix(".safetensors") for names in members.values() for name in names
    )
