"""Make the best trials of the three axes an ensemble, by their validation scores alone.

Of every axis the best complete trials become members; the test set is not looked at. Where
every axis has tried both, the best pretrained trials and the best from scratch are kept
beside them, so that `evaluate` can compare the two.

    strokeseg promote --experiment siss-like
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, code_version, trial_weights, weights_files
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import LeaderboardRow, best_by_start, best_members, read_leaderboard
from strokeseg.learning.checkpoint import read_member_record
from strokeseg.learning.ensemble_record import RECORD_NAME, EnsembleRecord, write_ensemble
from strokeseg.preparation.record import Preparation, read_preparation

_STARTS = {"pretrained": True, "scratch": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("promote", __doc__)
    cli.add_experiment_options(parser)
    options = parser.parse_args(arguments)

    def work() -> int:
        experiment = cli.experiment_of(options)
        promote(experiment)
        return cli.DONE

    return cli.run_command(work)


def promote(experiment: Experiment) -> EnsembleRecord:
    """Write the ensemble of an experiment's best trials and print its members.

    Raises:
        UserError: When an axis was not searched, has no complete trial, or was searched on
            other data than are prepared now.
    """
    preparation = read_preparation(experiment)
    boards = {axis: _read_board(experiment, axis) for axis in AXES}
    chosen = {
        axis: best_members(rows, experiment.config.ensemble.members_per_axis)
        for axis, rows in boards.items()
    }
    lacking = [axis for axis, rows in chosen.items() if not rows]
    if lacking:
        raise UserError(
            f"{experiment.folder}: no trial of {', '.join(lacking)} has run to its end; "
            f"run strokeseg search --experiment {experiment.name} --axis {lacking[0]}"
        )
    comparison = {
        name: {axis: [row] for axis, row in by_axis.items()}
        for name, pretrained in _STARTS.items()
        if (by_axis := _best_starts(boards, pretrained=pretrained))
    }
    found = {
        axis: {
            row.trial: _weights(experiment, axis, row)
            for rows_by_axis in (chosen, *comparison.values())
            for row in rows_by_axis[axis]
        }
        for axis in AXES
        if axis in chosen
    }
    files = {
        _member_name(axis, trial, path): path
        for axis, by_trial in found.items()
        for trial, paths in by_trial.items()
        for path in paths
    }
    _check_members(files, preparation)
    record = EnsembleRecord.model_validate(
        {
            "name": experiment.name,
            "sequences": experiment.config.data.sequences,
            "spacing_mm": preparation.spacing_mm,
            "reference": experiment.config.preparation.reference,
            "rule": {"threshold": experiment.config.ensemble.threshold},
            "members": _member_names(chosen, found),
            "comparison": {name: _member_names(rows, found) for name, rows in comparison.items()},
            "preparation_hash": preparation.fingerprint,
            "code_version": code_version(),
        }
    )
    write_ensemble(experiment.ensemble_folder, record, files)
    _print_members(experiment, chosen, complete=len(comparison) == len(_STARTS))
    return record


def _read_board(experiment: Experiment, axis: str) -> list[LeaderboardRow]:
    path = experiment.leaderboard_csv(axis)
    if not path.exists():
        raise UserError(
            f"{path}: there is none; run strokeseg search --experiment {experiment.name} "
            f"--axis {axis} first"
        )
    return read_leaderboard(path)


def _best_starts(
    boards: Mapping[str, Sequence[LeaderboardRow]], *, pretrained: bool
) -> dict[str, LeaderboardRow]:
    """The best trial of every axis with this start, or nothing unless all axes have one."""
    best = {axis: best_by_start(rows, pretrained=pretrained) for axis, rows in boards.items()}
    found = {axis: row for axis, row in best.items() if row is not None}
    return found if len(found) == len(boards) else {}


def _weights(experiment: Experiment, axis: str, row: LeaderboardRow) -> list[Path]:
    """The files of a trial: one network, or with k-fold scoring one a fold."""
    folder = experiment.trials_folder(axis)
    if found := weights_files(folder, row.trial):
        return found
    raise UserError(
        f"{trial_weights(folder, row.trial)}: the weights of this trial are gone; a search keeps "
        "those of the best ensemble.candidates_per_axis trials only: set it back, or search anew "
        "under another experiment name"
    )


def _member_name(axis: str, trial: int, path: Path) -> str:
    return f"{axis}-{trial:04d}{path.name.removeprefix('best')}"


def _member_names(
    chosen: Mapping[str, Sequence[LeaderboardRow]],
    found: Mapping[str, Mapping[int, Sequence[Path]]],
) -> dict[str, list[str]]:
    return {
        axis: [
            _member_name(axis, row.trial, path) for row in rows for path in found[axis][row.trial]
        ]
        for axis, rows in chosen.items()
    }


def _check_members(files: Mapping[str, Path], preparation: Preparation) -> None:
    for path in files.values():
        if read_member_record(path).preparation_hash != preparation.fingerprint:
            raise UserError(
                f"{path}: was trained on other data than are prepared now; search anew under "
                "another experiment name"
            )


def _print_members(
    experiment: Experiment, chosen: Mapping[str, Sequence[LeaderboardRow]], *, complete: bool
) -> None:
    cli.print_table(
        "The ensemble, by validation Dice",
        ("axis", "trial", "Dice", "encoder", "depth", "pretrained"),
        [
            (
                axis,
                str(row.trial),
                f"{row.dice:.3f}",
                row.config.encoder,
                str(row.config.encoder_depth),
                "yes" if row.config.pretrained else "no",
            )
            for axis, rows in chosen.items()
            for row in rows
        ],
    )
    if not complete:
        print("Pretrained and scratch are not compared: not every axis has a scored trial of both")
    print(f"Ensemble: {experiment.ensemble_folder / RECORD_NAME}")


if __name__ == "__main__":
    sys.exit(main())
