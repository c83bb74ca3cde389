"""The measurement of leakage, as `measure-leakage` runs and prints it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strokeseg import cli
from strokeseg.compute.gpu_share import AUTO
from strokeseg.compute.session import ray_session
from strokeseg.errors import UserError
from strokeseg.leakage.runs import LeakageScoreStore, Pool, Run, choose_configurations, plan_runs
from strokeseg.leakage.tasks import do_runs
from strokeseg.preparation.steps import ensure_prepared
from strokeseg.records.config import SearchConfig
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.leaderboard import read_leaderboard
from strokeseg.records.leakage import LeakageRow, means, sentences, write_leakage
from strokeseg.records.preparation import Preparation
from strokeseg.training.encoders import check_encoders
from strokeseg.tuning.options import (
    budget_of,
    prepared_slices,
    space_path_of,
    weights_folder,
)
from strokeseg.tuning.space_file import load_space


def measure_leakage(axis: str, options: argparse.Namespace) -> int:
    """Do an axis's runs that are not done yet, and print what all of them found."""
    experiment = cli.experiment_of(options)
    budget = budget_of(experiment.config.search, options)
    board = experiment.leaderboard_csv(axis)
    space_path = space_path_of(experiment, axis, options)
    space = load_space(space_path)
    channels = len(experiment.config.data.sequences)
    check_encoders(space.wanted_encoders(space_path, channels, None))
    configurations = choose_configurations(
        space,
        read_leaderboard(board) if board.exists() else [],
        weights_folder(options),
    )
    if options.gpus_per_trial == AUTO:
        raise UserError(
            f"--gpus-per-trial {AUTO}: is measured for a search only; say how many GPUs, or what "
            "fraction of one, a run of measure-leakage gets"
        )
    with cli.logging_to(experiment.log_folder / f"leakage-{axis}.log"):
        preparation = ensure_prepared(
            experiment, cli.progress, compare_files=options.data is not None
        )
        pool = _pool(experiment, axis, preparation, budget)
        runs = plan_runs(configurations, pool, budget, options.seeds)
        store = LeakageScoreStore(experiment, pool, configurations, code_version())
        failures: dict[Run, str] = {}
        if missing := store.missing(runs):
            with (
                ray_session(experiment.folder),
                cli.progress(f"Measuring leakage, {axis}, epochs") as show,
            ):
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
    _print_scores(axis, rows)
    print(f"\nAll runs: {experiment.leakage_csv(axis)}")
    return cli.SOME_FAILED if failures else cli.DONE


def _pool(
    experiment: Experiment, axis: str, preparation: Preparation, budget: SearchConfig
) -> Pool:
    data = prepared_slices(experiment, preparation, budget)
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


def _print_scores(axis: str, rows: Sequence[LeakageRow]) -> None:
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
