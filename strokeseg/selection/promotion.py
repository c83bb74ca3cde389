"""The promotion of an experiment's best trials to its ensemble, and what is printed of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from strokeseg import cli
from strokeseg.compute.session import ray_session
from strokeseg.errors import UserError
from strokeseg.imaging.slices import AXES
from strokeseg.records.ensemble import RECORD_NAME, EnsembleRecord, write_ensemble
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.leaderboard import LeaderboardRow, best_by_start, read_leaderboard
from strokeseg.records.phrases import STEP_COLUMNS, count, step_rows
from strokeseg.records.preparation import Preparation, read_preparation
from strokeseg.selection.candidates import Candidate, Candidates, candidate, find_candidates
from strokeseg.selection.choice import choose_ensemble
from strokeseg.selection.record import Outcome, as_values, sentences

_STARTS = {"pretrained": True, "scratch": False}
Boards = Mapping[str, Sequence[LeaderboardRow]]


def promote(experiment: Experiment, device: torch.device) -> EnsembleRecord:
    """Write the ensemble that is chosen among an experiment's best trials, and print it.

    Args:
        device: Where to compute the predictions.

    Raises:
        UserError: When an axis was not searched, has no complete trial, was searched on
            other data than are prepared now, or a prediction cannot be computed.
    """
    preparation = read_preparation(experiment)
    boards = {axis: _read_board(experiment, axis) for axis in AXES}
    candidates = find_candidates(experiment, preparation, boards)
    comparison = _comparison(experiment, preparation, boards)
    outcome = _choose(experiment, preparation, candidates, device)
    chosen = [candidates.by_name[name] for _, name in outcome.chosen.members]
    record = EnsembleRecord.model_validate(
        {
            "name": experiment.name,
            "sequences": experiment.config.data.sequences,
            "spacing_mm": preparation.spacing_mm,
            "reference": experiment.config.preparation.reference,
            "rule": outcome.chosen.rule,
            "members": _member_names(chosen),
            "comparison": {name: _member_names(best) for name, best in comparison.items()},
            "preparation_hash": preparation.fingerprint,
            "code_version": code_version(),
        }
    )
    files: dict[str, Path] = {}
    for promoted in (chosen, *comparison.values()):
        for one in promoted:
            files.update(one.members)
    choice = as_values(outcome, candidates.names)
    notes = {experiment.choice_json.name: choice}
    write_ensemble(experiment.ensemble_folder, record, files, notes)
    _print_choice(candidates, outcome, choice)
    _print_members(chosen, record, complete=len(comparison) == len(_STARTS))
    print(f"Ensemble: {experiment.ensemble_folder / RECORD_NAME}")
    return record


def _choose(
    experiment: Experiment, preparation: Preparation, candidates: Candidates, device: torch.device
) -> Outcome:
    if experiment.config.ensemble.choose == "vote":
        return choose_ensemble(
            experiment, preparation, candidates, device=device, show=lambda *_: None
        )
    with (
        ray_session(experiment.folder, experiment.data_path),
        cli.progress("Computing predictions, by case") as show,
    ):
        return choose_ensemble(experiment, preparation, candidates, device=device, show=show)


def _read_board(experiment: Experiment, axis: str) -> list[LeaderboardRow]:
    path = experiment.leaderboard_csv(axis)
    if not path.exists():
        raise UserError(
            f"{path}: there is none; run strokeseg search --experiment {experiment.name} "
            f"--axis {axis} first"
        )
    return read_leaderboard(path)


def _comparison(
    experiment: Experiment, preparation: Preparation, boards: Boards
) -> dict[str, list[Candidate]]:
    """The best trials of every axis by their start, where all axes have one."""
    found = {}
    for name, pretrained in _STARTS.items():
        best = {axis: best_by_start(rows, pretrained=pretrained) for axis, rows in boards.items()}
        rows = {axis: row for axis, row in best.items() if row is not None}
        if len(rows) == len(boards):
            found[name] = [
                candidate(experiment, preparation, axis, row) for axis, row in rows.items()
            ]
    return found


def _member_names(promoted: Sequence[Candidate]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in promoted:
        names.setdefault(one.axis, []).extend(one.members)
    return names


def _print_choice(candidates: Candidates, outcome: Outcome, choice: Mapping[str, Any]) -> None:
    if candidates.without_weights:
        print(
            f"No candidates, since their weights are gone: {', '.join(candidates.without_weights)} "
            "(a search keeps those of the best ensemble.candidates_per_axis trials)"
        )
    if outcome.steps:
        cli.print_table(
            "What each step brought: mean 3D Dice over "
            f"{count(outcome.patients, 'validation patient')}",
            STEP_COLUMNS,
            step_rows(choice),
        )
    for sentence in sentences(outcome):
        print(sentence)


def _print_members(members: Sequence[Candidate], record: EnsembleRecord, *, complete: bool) -> None:
    cli.print_table(
        f"The ensemble: {record.rule.in_words()}",
        ("axis", "trial", "Dice", "encoder", "depth", "pretrained"),
        [
            (
                one.axis,
                str(one.row.trial),
                f"{one.row.dice:.3f}",
                one.row.config.encoder,
                str(one.row.config.encoder_depth),
                "yes" if one.row.config.pretrained else "no",
            )
            for one in members
        ],
    )
    if not complete:
        print("Pretrained and scratch are not compared: not every axis has a scored trial of both")
