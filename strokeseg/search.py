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
from pathlib import Path

from strokeseg import cli
from strokeseg.config import SearchConfig, parse_record
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, code_version
from strokeseg.gains import gain_by_transfer, gain_over_default
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import (
    LeaderboardRow,
    ranked,
    read_leaderboard,
    write_leaderboard,
)
from strokeseg.leakage import LeakageRow, means, sentences, write_leakage
from strokeseg.pages import further_runs
from strokeseg.preparation.record import Preparation
from strokeseg.preparation.steps import ensure_prepared
from strokeseg.ray_session import ray_session
from strokeseg.tuning.importances import write_importances
from strokeseg.tuning.leakage import FindingStore, Pool, Run, choose_configurations, plan_runs
from strokeseg.tuning.leakage_tasks import do_runs
from strokeseg.tuning.ledger import Ledger
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
    parser.add_argument(
        "--extend",
        type=_positive,
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
        type=_positive,
        default=2,
        metavar="N",
        help="how often to repeat that with another seed and inner fold (default: 2)",
    )
    add_search_options(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: (_leakage if options.measure_leakage else _work)(options))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much a search may spend, and with what."""
    parser.add_argument("--space", metavar="FILE", help="search space, in place of the YAML's")
    parser.add_argument(
        "--trials",
        "--max-trials",
        dest="trials",
        type=int,
        help="number of trials, in place of the YAML's",
    )
    parser.add_argument("--epochs", type=int, help="epochs a trial, in place of the YAML's")
    parser.add_argument(
        "--max-hours", type=float, metavar="H", help="stop after so many hours of searching"
    )
    parser.add_argument(
        "--target-dice", type=float, metavar="D", help="stop when a trial scores so much"
    )
    parser.add_argument(
        "--sampler", choices=("tpe", "random", "gp", "cmaes"), help="who proposes (default: tpe)"
    )
    parser.add_argument(
        "--k-fold",
        dest="scoring",
        action="store_const",
        const="k-fold",
        help="score every trial on all folds, not on the validation fold alone",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        help="GPUs of a trial: a fraction of one, one, or several that train it together; 0 for "
        "none (default: 1 if there are any)",
    )
    parser.add_argument(
        "--workers-per-trial",
        type=int,
        metavar="N",
        help="processes that train a trial together on CPUs (default: 1; on GPUs one each)",
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
        importances = axis_importances(experiment, options.axis, rows)
    print_leaderboard(options.axis, rows)
    print(importances)
    print(
        f"\nAll trials: {experiment.leaderboard_csv(options.axis)}\n"
        f"To see how they learned: tensorboard --logdir "
        f"{experiment.tensorboard_folder(options.axis)}"
    )
    return cli.DONE


def _leakage(options: argparse.Namespace) -> int:
    experiment, axis = cli.experiment_of(options), options.axis
    budget = _budget(experiment.config.search, options)
    board = experiment.leaderboard_csv(axis)
    configurations = choose_configurations(
        load_space(_space_path(experiment, axis, options), len(experiment.config.data.sequences)),
        read_leaderboard(board) if board.exists() else [],
        options.weights_dir,
    )
    with cli.logging_to(experiment.log_folder / f"leakage-{axis}.log"):
        preparation = ensure_prepared(
            experiment, cli.progress, compare_files=options.data is not None
        )
        pool = _pool(experiment, axis, preparation, budget)
        runs = plan_runs(configurations, pool, budget, options.leakage_seeds)
        store = FindingStore(experiment, pool, configurations, code_version())
        failures: dict[Run, str] = {}
        if missing := store.missing(runs):
            with ray_session(), cli.progress(f"Measuring leakage, {axis}, epochs") as show:
                failures = do_runs(
                    missing,
                    configurations,
                    pool,
                    store,
                    gpus_per_run=options.gpus_per_trial,
                    show=show,
                )
    rows = store.rows(runs, failures)
    write_leakage(experiment.leakage_csv(axis), rows)
    _print_leakage(axis, rows)
    print(f"\nAll runs: {experiment.leakage_csv(axis)}")
    return cli.SOME_FAILED if failures else cli.DONE


def _pool(
    experiment: Experiment, axis: str, preparation: Preparation, budget: SearchConfig
) -> Pool:
    data = _prepared_slices(experiment, preparation, budget)
    folds = list(data.folds)
    unseen = folds.pop(data.validation_fold)
    return Pool(
        slices_folder=data.folder,
        axis=axis,
        folds=tuple(folds),
        unseen_cases=unseen,
        channels=len(experiment.config.data.sequences),
        fingerprint=data.fingerprint,
    )


def _print_leakage(axis: str, rows: Sequence[LeakageRow]) -> None:
    averages = means(rows)
    cli.print_table(
        f"{axis}: mean 3D Dice as it would have been printed, and on unseen patients; means over "
        "seeds ± standard deviation",
        ("configuration", "split by", "runs", "printed", "unseen", "gap"),
        [
            (
                average.configuration,
                average.level,
                str(average.runs),
                str(average.printed),
                str(average.unseen),
                str(average.gap),
            )
            for average in averages
        ],
    )
    for row in rows:
        if row.reason:
            print(
                f"failed: {row.configuration}, split by {row.level}, seed {row.seed}: "
                f"{row.reason}; the same command tries it again",
                file=sys.stderr,
            )
    print("\n".join(sentences(averages)))


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
        UserError: When a setting, the space, weights or resources are not as they must be,
            or all trials fail for one reason.
        KeyboardInterrupt: When it was interrupted; what was done so far is kept.
    """
    budget = _budget(experiment.config.search, options)
    data = _prepared_slices(experiment, preparation, budget)
    with open_study(
        experiment,
        axis,
        data,
        budget=budget,
        space_path=_space_path(experiment, axis, options),
        weights_dir=options.weights_dir,
        extend=getattr(options, "extend", 0),
        new_study=getattr(options, "new_study", False),
    ) as study:
        ledger = study.ledger
        if not ledger.is_done():
            with ray_session(), cli.progress(f"Searching {axis}, epochs") as show:
                run_study(
                    study,
                    experiment,
                    axis,
                    data,
                    budget=budget,
                    gpus_per_trial=options.gpus_per_trial,
                    workers_per_trial=options.workers_per_trial,
                    code_version=code_version(),
                    show=show,
                )
        write_leaderboard(experiment.leaderboard_csv(axis), ledger.rows())
        _check_ended(experiment, axis, ledger)
        return ledger.rows()


def _check_ended(experiment: Experiment, axis: str, ledger: Ledger) -> None:
    done = f"{ledger.trials - ledger.remaining()} of {ledger.trials} trials are done"
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


def _budget(config: SearchConfig, options: argparse.Namespace) -> SearchConfig:
    names = ("trials", "epochs", "max_hours", "target_dice", "sampler", "scoring")
    given = {name: getattr(options, name) for name in names}
    changed = {name: value for name, value in given.items() if value is not None}
    return parse_record(SearchConfig, {**config.model_dump(), **changed}, "search")


def _space_path(experiment: Experiment, axis: str, options: argparse.Namespace) -> Path:
    return Path(options.space).absolute() if options.space else experiment.space_path(axis)


def _prepared_slices(
    experiment: Experiment, preparation: Preparation, budget: SearchConfig
) -> PreparedSlices:
    sides = {case.fold for case in preparation.cases.values() if case.fold is not None}
    count = sum(side.isdecimal() for side in sides)
    folds = tuple(preparation.names(str(fold)) for fold in range(count))
    k_fold = budget.scoring == "k-fold"
    scoring = range(count) if k_fold else (experiment.config.splits.validation_fold,)
    for fold in scoring:
        rest = [case for other, cases in enumerate(folds) if other != fold for case in cases]
        for role, cases in (("training", rest), ("validation", folds[fold])):
            if not any(preparation.lesion_ml[case] > 0 for case in cases):
                raise UserError(
                    f"{experiment.splits_json}: no {role} case shows a lesion when fold {fold} "
                    f"validates, so there is nothing to "
                    f"{'learn' if role == 'training' else 'score'}; choose another "
                    "splits.validation_fold, or other splits under another experiment name"
                )
    return PreparedSlices(
        folder=experiment.slices_folder,
        folds=folds,
        validation_fold=experiment.config.splits.validation_fold,
        spacing_mm=preparation.spacing_mm,
        fingerprint=preparation.fingerprint,
    )


if __name__ == "__main__":
    sys.exit(main())
