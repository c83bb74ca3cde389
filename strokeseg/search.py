"""Search hyperparameters along one axis: Optuna proposes, Ray Tune runs the trials.

Every trial trains one 2D U-Net on the training folds and is scored by its mean 3D Dice over
the patients of the validation fold, or with --k-fold over the patients of all folds, one
after the other. Trials run side by side as CPUs or GPUs allow, and poor ones are stopped
early. Trial 0 is a default configuration; the best configurations of axes that are searched
already come next. The best trials run again with other seeds before one is promoted. Data
that is not prepared is prepared first.

An interrupted search goes on where it stopped, with the same command. It goes on only with
the space, data and budget that it began with: --extend adds trials, --new-study begins anew
and inherits the trials that are points of the changed space.

With --measure-leakage nothing is searched. The default configuration, and the best trial if
there is one, are trained twice on the training folds: with slices divided at random, so that
those of one patient lie on both sides, and divided by patient. What each would have printed
stands beside what it scores on the validation fold's patients, whom neither has seen.

    strokeseg search --axis coronal
    strokeseg search --axis axial --experiment siss-like --trials 40 --gpus-per-trial 0.5
    strokeseg search --axis axial --max-hours 12 --target-dice 0.8
    strokeseg search --axis axial --extend 20
    strokeseg search --axis coronal --measure-leakage
    tensorboard --logdir runs/demo/search/coronal/tensorboard
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, code_version
from strokeseg.gains import further_runs, gain_by_transfer, gain_over_default
from strokeseg.imaging.slices import AXES
from strokeseg.interrupts import check_interrupt
from strokeseg.leaderboard import (
    LeaderboardRow,
    ranked,
    write_leaderboard,
)
from strokeseg.leakage_measurement import measure_leakage
from strokeseg.preparation.record import Preparation
from strokeseg.preparation.steps import ensure_prepared
from strokeseg.ray_session import ray_session
from strokeseg.search_options import (
    add_search_options,
    budget_of,
    check_search,
    positive,
    prepared_slices,
    space_path_of,
    weights_folder,
)
from strokeseg.tuning.importances import write_importances
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.running import run_study
from strokeseg.tuning.study import open_study

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
    parser.add_argument(
        "--measure-leakage",
        action="store_true",
        help="search nothing; measure what a split by slice would print, and what it is worth",
    )
    parser.add_argument(
        "--leakage-seeds",
        type=positive,
        default=2,
        metavar="N",
        help="how often to repeat that with another seed and inner fold (default: 2)",
    )
    add_search_options(parser)
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    work = measure_leakage if options.measure_leakage else _work
    return cli.run_command(lambda: work(options), options.address)


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
        importances = axis_importances(experiment, options.axis, rows)
    print_leaderboard(options.axis, rows)
    print(importances)
    print(
        f"\nAll trials: {experiment.leaderboard_csv(options.axis)}\n"
        f"To see how they learned: tensorboard --logdir "
        f"{experiment.tensorboard_folder(options.axis)}"
    )
    return cli.DONE


def search_axis(
    experiment: Experiment, axis: str, preparation: Preparation, options: argparse.Namespace
) -> list[LeaderboardRow]:
    """Search along one axis, or go on with its search, and return the leaderboard.

    Raises:
        UserError: When a setting, the space, weights or resources are not as they must be,
            or all trials fail for one reason.
        KeyboardInterrupt: When it was interrupted; what was done so far is kept.
    """
    budget = budget_of(experiment.config.search, options)
    data = prepared_slices(experiment, preparation, budget)
    with open_study(
        experiment,
        axis,
        data,
        budget=budget,
        space_path=space_path_of(experiment, axis, options),
        weights_dir=weights_folder(options),
        extend=getattr(options, "extend", 0),
        new_study=getattr(options, "new_study", False),
    ) as study:
        ledger = study.ledger
        if not ledger.is_done():
            with (
                ray_session(experiment.shared_folder),
                cli.progress(f"Searching {axis}, epochs") as show,
            ):
                run_study(
                    study,
                    experiment,
                    axis,
                    data,
                    budget=budget,
                    gpus_per_trial=options.gpus_per_trial,
                    workers_per_trial=options.workers_per_trial,
                    deterministic=options.deterministic,
                    code_version=code_version(),
                    show=show,
                )
        write_leaderboard(experiment.leaderboard_csv(axis), ledger.rows())
        _check_ended(experiment, axis, ledger)
        check_interrupt()
        return ledger.rows()


def _check_ended(experiment: Experiment, axis: str, ledger: Ledger) -> None:
    done = f"{ledger.trials - ledger.remaining()} of {ledger.trials} trials are done"
    if reason := ledger.halted:
        raise UserError(f"{reason}. {done}; the same command goes on from there")
    if reason := ledger.hopeless():
        raise UserError(
            f"{experiment.leaderboard_csv(axis)}: every trial failed for one reason: {reason}; "
            f"mend it. {done}; the same command goes on with the others, and one with --extend "
            "or another space with more"
        )
    if not ledger.is_done():
        print(f"{done}; the same command goes on from there", file=sys.stderr)
        raise KeyboardInterrupt
    if reason := ledger.out_of_time() or ledger.reached_target():
        print(f"Searching {axis} stopped: {reason}; {done}")
    rows = ledger.rows()
    if rows and all(row.state == "FAIL" for row in rows):
        raise UserError(
            f"{experiment.leaderboard_csv(axis)}: all {len(ledger.rows())} trials failed, the "
            f"first with: {ledger.rows()[0].reason}; mend it, move "
            f"{experiment.search_folder(axis)} away, and search anew"
        )


def print_leaderboard(axis: str, rows: Sequence[LeaderboardRow]) -> None:
    """Print the best trials of an axis, and what the search has gained."""
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
    if transferred := gain_by_transfer(rows):
        print(transferred)


def axis_importances(experiment: Experiment, axis: str, rows: Sequence[LeaderboardRow]) -> str:
    """Write which parameters mattered along an axis, and return what to print of it."""
    return write_importances(experiment.journal(axis), axis, rows, experiment.importances_csv(axis))


if __name__ == "__main__":
    sys.exit(main())
