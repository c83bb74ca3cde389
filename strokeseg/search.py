"""Search hyperparameters along one axis: Optuna proposes, Ray Tune runs the trials.

Every trial trains one 2D U-Net on the training folds and is scored by its mean 3D Dice over
the patients of the validation fold. Trials run side by side as CPUs or GPUs allow, and poor
ones are stopped early. Data that is not prepared is prepared first. An interrupted search
goes on where it stopped; a search with more --trials than before adds the difference.

    strokeseg search --axis coronal
    strokeseg search --axis axial --experiment siss-like --trials 40 --gpus-per-trial 0.5
    tensorboard --logdir runs/demo/search/coronal/tensorboard
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.config import SearchConfig, parse_record
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, code_version
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import LeaderboardRow, write_leaderboard
from strokeseg.preparation.record import Preparation
from strokeseg.preparation.steps import ensure_prepared
from strokeseg.ray_session import ray_session
from strokeseg.tuning.importances import write_importances
from strokeseg.tuning.space import load_space
from strokeseg.tuning.study import PreparedSlices, find_weights, open_study, run_study

_SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("search", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    parser.add_argument("--axis", required=True, choices=AXES, help="along which to slice")
    parser.add_argument(
        "--resume", action="store_true", help="insist that there is a search to go on with"
    )
    add_search_options(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options))


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much a search may spend, and with what."""
    parser.add_argument("--space", metavar="FILE", help="search space, in place of the YAML's")
    parser.add_argument("--trials", type=int, help="number of trials, in place of the YAML's")
    parser.add_argument("--epochs", type=int, help="epochs a trial, in place of the YAML's")
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        help="GPUs of a trial, or a fraction of one, 0 for none (default: 1 if there are any)",
    )
    parser.add_argument(
        "--weights-dir",
        type=Path,
        metavar="FOLDER",
        help="pretrained encoders as <encoder>.safetensors or .pth, looked for there first",
    )


def _work(options: argparse.Namespace) -> int:
    experiment = cli.experiment_of(options)
    if options.resume and not experiment.journal(options.axis).exists():
        raise UserError(
            f"{experiment.search_folder(options.axis)}: there is no search to resume; "
            "leave --resume out to begin one"
        )
    check_search(experiment, (options.axis,), options)
    with cli.logging_to(experiment.log_folder / f"search-{options.axis}.log"):
        preparation = ensure_prepared(
            experiment, cli.progress, compare_files=options.data is not None
        )
        rows = search_axis(experiment, options.axis, preparation, options)
        importances = axis_importances(experiment, options.axis)
    print_leaderboard(options.axis, rows)
    print(importances)
    print(
        f"\nAll trials: {experiment.leaderboard_csv(options.axis)}\n"
        f"To see how they learned: tensorboard --logdir "
        f"{experiment.tensorboard_folder(options.axis)}"
    )
    return cli.DONE


def check_search(experiment: Experiment, axes: Sequence[str], options: argparse.Namespace) -> None:
    """Check what a search needs besides data, before anybody waits for anything.

    Raises:
        UserError: When the budget or a space is wrong, or pretrained weights that a new
            study asks for cannot be had.
    """
    _budget(experiment.config.search, options)
    for axis in axes:
        space = load_space(
            _space_path(experiment, axis, options), len(experiment.config.data.sequences)
        )
        if not experiment.journal(axis).exists():
            find_weights(space, options.weights_dir)


def search_axis(
    experiment: Experiment, axis: str, preparation: Preparation, options: argparse.Namespace
) -> list[LeaderboardRow]:
    """Search along one axis, or go on with its search, and return the leaderboard.

    Raises:
        UserError: When a setting, the space, weights or resources are not as they must be.
        KeyboardInterrupt: When it was interrupted; what was done so far is kept.
    """
    budget = _budget(experiment.config.search, options)
    space_path = _space_path(experiment, axis, options)
    data = _prepared_slices(experiment, preparation)
    with open_study(
        experiment,
        axis,
        data,
        budget=budget,
        space_path=space_path,
        weights_dir=options.weights_dir,
    ) as study:
        if not study.ledger.remaining():
            rows = study.ledger.rows()
            write_leaderboard(experiment.leaderboard_csv(axis), rows)
            return _usable(experiment, axis, rows)
        with ray_session(), cli.progress(f"Searching {axis}, epochs") as show:
            rows = run_study(
                study,
                experiment,
                axis,
                data,
                budget=budget,
                gpus_per_trial=options.gpus_per_trial,
                code_version=code_version(),
                show=show,
            )
        if study.ledger.remaining():
            done = study.ledger.trials - study.ledger.remaining()
            print(
                f"{done} of {study.ledger.trials} trials are done; "
                "the same command goes on from there",
                file=sys.stderr,
            )
            raise KeyboardInterrupt
        return _usable(experiment, axis, rows)


def print_leaderboard(axis: str, rows: Sequence[LeaderboardRow]) -> None:
    """Print the best trials of an axis."""
    scored = sorted(
        (row for row in rows if row.dice is not None), key=lambda row: -(row.dice or 0.0)
    )
    cli.print_table(
        f"{axis}: best of {len(rows)} trials, by mean 3D Dice over the validation patients",
        ("trial", "Dice", "epochs", "state", "encoder", "depth", "pretrained", "learning rate"),
        [
            (
                str(row.trial),
                f"{row.dice:.3f}",
                f"{row.epochs_run}",
                row.state,
                row.config.encoder,
                str(row.config.encoder_depth),
                "yes" if row.config.pretrained else "no",
                f"{row.config.learning_rate:.2g}",
            )
            for row in scored[:_SHOWN]
        ],
    )


def axis_importances(experiment: Experiment, axis: str) -> str:
    """Write which parameters mattered along an axis, and return what to print of it."""
    return write_importances(experiment.journal(axis), axis, experiment.importances_csv(axis))


def _usable(experiment: Experiment, axis: str, rows: list[LeaderboardRow]) -> list[LeaderboardRow]:
    if all(row.state == "FAIL" for row in rows):
        raise UserError(
            f"{experiment.leaderboard_csv(axis)}: all {len(rows)} trials failed, the first with: "
            f"{rows[0].reason}; mend it, move {experiment.search_folder(axis)} away, and search "
            "anew"
        )
    return rows


def _budget(config: SearchConfig, options: argparse.Namespace) -> SearchConfig:
    given = {name: getattr(options, name) for name in ("trials", "epochs")}
    changed = {name: value for name, value in given.items() if value is not None}
    return parse_record(SearchConfig, {**config.model_dump(), **changed}, "search")


def _space_path(experiment: Experiment, axis: str, options: argparse.Namespace) -> Path:
    return Path(options.space).absolute() if options.space else experiment.space_path(axis)


def _prepared_slices(experiment: Experiment, preparation: Preparation) -> PreparedSlices:
    splits = experiment.config.splits
    validation = str(splits.validation_fold)
    sides = {case.fold for case in preparation.cases.values() if case.fold is not None}
    training = sorted(side for side in sides if side.isdecimal() and side != validation)
    for role, names in (("training", training), ("validation", [validation])):
        if not any(preparation.lesion_ml[case] > 0 for case in preparation.names(*names)):
            raise UserError(
                f"{experiment.splits_json}: no {role} case shows a lesion, so there is nothing to "
                f"{'learn' if role == 'training' else 'score'}; choose another "
                "splits.validation_fold, or other splits under another experiment name"
            )
    return PreparedSlices(
        folder=experiment.slices_folder,
        training_cases=preparation.names(*training),
        validation_cases=preparation.names(validation),
        spacing_mm=preparation.spacing_mm,
        fingerprint=preparation.fingerprint,
    )


if __name__ == "__main__":
    sys.exit(main())
