"""Search hyperparameters along one axis or several: Optuna proposes, Ray Tune runs the trials.

Every trial trains one 2D U-Net on the training folds and is scored by its mean 3D Dice over
the patients of the validation fold, or with --k-fold over the patients of all folds, one
after the other. Each axis has a study of its own; the trials of all of them run side by side
as CPUs or GPUs allow, and poor ones are stopped early. Trial 0 is a default configuration. The
best trials run again with other seeds before one is promoted. Data that is not prepared is
prepared first.

An interrupted search goes on where it stopped, with the same command. It goes on only with
the space, data and budget that it began with: --extend adds trials, --new-study begins a new
one that inherits the trials that are points of the changed space.

    strokeseg search --axis coronal
    strokeseg search --axis axial coronal sagittal
    strokeseg search --axis axial --experiment siss-like --trials 40 --gpus-per-trial 0.5
    strokeseg search --axis axial --max-hours 12 --target-dice 0.8
    strokeseg search --axis axial --extend 20
    tensorboard --logdir runs/demo/search/coronal/tensorboard
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.tuning.options import (
    add_axis_option,
    add_search_options,
    positive,
    prepared_slices,
    search_settings,
)

if TYPE_CHECKING:
    from strokeseg.records.experiment import Experiment
    from strokeseg.records.leaderboard import LeaderboardRow

_SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("search", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    add_axis_option(parser)
    parser.add_argument(
        "--resume", action="store_true", help="insist that there is a search to go on with"
    )
    parser.add_argument(
        "--extend",
        type=positive,
        default=0,
        metavar="N",
        help="N trials more than the study has, once these are done",
    )
    parser.add_argument(
        "--new-study",
        action="store_true",
        help="where settings have changed, put the study aside and begin one that inherits",
    )
    add_search_options(parser)
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options), options.address)


def _work(options: argparse.Namespace) -> int:
    from strokeseg.preparation.steps import ensure_prepared
    from strokeseg.tuning.search import Search

    axes = list(dict.fromkeys(options.axis))
    experiment = cli.experiment_of(options)
    for axis in axes:
        if options.resume and not experiment.journal(axis).exists():
            raise UserError(
                f"{experiment.search_folder(axis)}: there is no search to resume; "
                "leave --resume out to begin one"
            )
    settings = search_settings(experiment, axes, options)
    with (
        cli.logging_to(experiment.log_folder / f"search-{'-'.join(axes)}.log"),
        ExitStack() as session,
    ):
        search = Search(experiment, settings, session)
        search.check_encoders()
        preparation = ensure_prepared(
            experiment, cli.progress, compare_files=options.data is not None
        )
        data = prepared_slices(experiment, preparation, settings.budget)
        print_results(experiment, search.run(data, cli.progress))
    for axis in axes:
        print(
            f"\nAll trials: {experiment.leaderboard_csv(axis)}\n"
            f"To see how they learned: tensorboard --logdir "
            f"{experiment.tensorboard_folder(axis)}"
        )
    return cli.DONE


def print_results(
    experiment: Experiment, leaderboards: Mapping[str, Sequence[LeaderboardRow]]
) -> None:
    """Print each axis's best trials, what its search has gained, and which parameters mattered."""
    from strokeseg.tuning.importances import write_importances

    for axis, rows in leaderboards.items():
        print_leaderboard(axis, rows)
        print(
            write_importances(
                experiment.journal(axis), axis, rows, experiment.importances_csv(axis)
            )
        )


def print_leaderboard(axis: str, rows: Sequence[LeaderboardRow]) -> None:
    """Print the best trials of an axis, and what the search has gained."""
    from strokeseg.records.gains import further_runs, gain_over_default
    from strokeseg.records.leaderboard import ranked

    own = [row for row in ranked(rows) if row.dice is not None and row.confirms is None]
    cli.print_table(
        f"{axis}: best of {len([r for r in rows if r.confirms is None])} trials, by mean 3D Dice "
        "over the validation patients",
        (
            *("trial", "Dice", "further runs", "epochs", "state", "encoder", "depth"),
            *("pretrained", "learning rate"),
        ),
        [
            (
                str(row.trial),
                f"{row.dice:.3f}",
                further_runs(row),
                f"{row.epochs_run}",
                row.state,
                row.config.encoder,
                str(row.config.encoder_depth),
                "yes" if row.config.pretrained else "no",
                f"{row.config.learning_rate:.2g}",
            )
            for row in own[:_SHOWN]
        ],
    )
    print(gain_over_default(rows))


if __name__ == "__main__":
    sys.exit(main())
