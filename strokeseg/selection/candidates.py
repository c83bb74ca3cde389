"""The trials that may become part of the ensemble, and their files.

A candidate of a k-fold search has one member a fold, others one in all. A member may predict
only the patients of the fold that scored it: it was trained on all others. So a candidate predicts
a validation patient with one member, the one that has not seen this patient, while in the ensemble
all its members vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.cases import TEST, Case
from strokeseg.imaging.slices import AXES
from strokeseg.records.experiment import Experiment, trial_weights, weights_files
from strokeseg.records.leaderboard import LeaderboardRow, best_members
from strokeseg.records.member_header import read_member_record
from strokeseg.records.preparation import Preparation


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial that may become part of the ensemble.

    Attributes:
        axis: Whose slices it was trained on.
        row: The trial on the axis's leaderboard.
        files: Its members by the fold that scored them.
    """

    axis: str
    row: LeaderboardRow
    files: Mapping[int, Path]

    @property
    def name(self) -> str:
        """Unique among all axes."""
        return f"{self.axis}-{self.row.trial:04d}"

    @property
    def members(self) -> dict[str, Path]:
        """Its files by the names that they get in the ensemble."""
        return {
            f"{self.name}{path.name.removeprefix('best')}": path for path in self.files.values()
        }


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """All candidates of an experiment.

    Attributes:
        by_axis: The candidates of each axis, best first.
        without_weights: Further trials that were good enough, but whose weights are gone.
    """

    by_axis: Mapping[str, Sequence[Candidate]]
    without_weights: tuple[str, ...] = ()

    @property
    def by_name(self) -> dict[str, Candidate]:
        """All of them by name, axis by axis, best first."""
        return {one.name: one for of_axis in self.by_axis.values() for one in of_axis}

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Their names by axis, best first."""
        return {axis: tuple(one.name for one in of) for axis, of in self.by_axis.items()}


def find_candidates(
    experiment: Experiment,
    preparation: Preparation,
    boards: Mapping[str, Sequence[LeaderboardRow]],
) -> Candidates:
    """Find the best complete trials of every axis that may be promoted.

    Raises:
        UserError: When an axis has no complete trial, the weights of a trial that the choice
            starts from are gone, or one was trained on other data than are prepared now.
    """
    ensemble = experiment.config.ensemble
    count = 1 if ensemble.choose == "vote" else ensemble.candidates_per_axis
    best = {
        axis: best_members(boards[axis], max(count, ensemble.members_per_axis)) for axis in AXES
    }
    if lacking := [axis for axis, rows in best.items() if not rows]:
        raise UserError(
            f"{experiment.folder}: no trial of {', '.join(lacking)} has run to its end; "
            f"run strokeseg search --experiment {experiment.name} --axis {lacking[0]}"
        )
    by_axis: dict[str, list[Candidate]] = {axis: [] for axis in AXES}
    gone = []
    for axis, rows in best.items():
        for place, row in enumerate(rows):
            needed = place < ensemble.members_per_axis
            if needed or weights_files(experiment.trials_folder(axis), row.trial):
                by_axis[axis].append(candidate(experiment, preparation, axis, row))
            else:
                gone.append(f"{axis} trial {row.trial}")
    return Candidates(by_axis=by_axis, without_weights=tuple(gone))


def candidate(
    experiment: Experiment, preparation: Preparation, axis: str, row: LeaderboardRow
) -> Candidate:
    """Find a trial's files.

    Raises:
        UserError: When they are gone or were trained on other data than are prepared now.
    """
    folder = experiment.trials_folder(axis)
    paths = weights_files(folder, row.trial)
    if not paths:
        raise UserError(
            f"{trial_weights(folder, row.trial)}: the weights of this trial are gone; a search "
            "keeps those of the best ensemble.candidates_per_axis trials only: search again under "
            "another experiment name"
        )
    files = {}
    for path in paths:
        record = read_member_record(path)
        if record.preparation_hash != preparation.fingerprint:
            raise UserError(
                f"{path}: was trained on other data than are prepared now; search again under "
                "another experiment name"
            )
        files[record.fold] = path
    return Candidate(axis=axis, row=row, files=files)


def unseen_cases(preparation: Preparation, candidates: Sequence[Candidate]) -> list[Case]:
    """Return the cases that every candidate can predict: none was trained on them.

    Raises:
        UserError: When there is no such case, or one of them is a locked test case.
    """
    folds = set.intersection(*(set(one.files) for one in candidates))
    cases = [preparation.cases[name] for name in preparation.names(*map(str, sorted(folds)))]
    if not cases:
        scored = {one.name: sorted(one.files) for one in candidates}
        raise UserError(
            f"no patient was left out by the training of every candidate (folds by candidate: "
            f"{scored}); search all axes with the same splits.validation_fold and scoring, or set "
            "ensemble.choose to vote"
        )
    refuse_test(cases)
    return cases


def refuse_test(cases: Sequence[Case]) -> None:
    """Make sure that nothing is chosen by what the test set says.

    Raises:
        UserError: When a case belongs to the test set.
    """
    if locked := [case.name for case in cases if case.fold == TEST]:
        raise UserError(
            f"{', '.join(locked)}: locked test cases, by which no ensemble may be chosen; "
            "choose by the validation patients"
        )
