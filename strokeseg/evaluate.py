"""Score the ensemble on the locked test cases, in 3D, on each case's own grid.

Every member and every axis alone, the vote as it was promoted, plain hard and soft votes of the
same members, and, where `promote` kept both, the vote of the best pretrained members beside that
of the best from scratch. Cases are spread over Ray's CPUs or GPUs; masks and maps of the axes'
disagreement are written as NIfTI. An evaluation that was interrupted goes on from there. If a
case fails, the others go on; the failed ones are listed and the exit code is 1.

With --on validation the patients that chose the trials are scored instead, which flatters
the ensemble; everything that is written says so. With --predictions and --name a folder of
masks from elsewhere is scored on the same cases, into the same tables; evaluation/baselines/ keeps
its scores for later evaluations, and removing its file there leaves it out again.

    strokeseg evaluate --experiment siss-like
    strokeseg evaluate --experiment siss-like --predictions nnunet_masks --name nnunet
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.ensemble.devices import add_device_option, device_of
from strokeseg.errors import UserError
from strokeseg.imaging.metric_names import POLICIES
from strokeseg.records.splits import SUBSETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("evaluate", __doc__)
    cli.add_experiment_options(parser)
    add_device_option(parser)
    add_side_option(parser)
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default="isles22",
        help="whose rules hold where a mask is empty (default: isles22)",
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="masks from elsewhere, <case>.nii.gz or named after BIDS; may be repeated",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="what the tables call the masks of --predictions; once for each",
    )
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options), options.address)


def add_side_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which patients are scored."""
    parser.add_argument(
        "--on",
        choices=SUBSETS,
        default="test",
        help="which patients to score (default: test)",
    )


def _work(options: argparse.Namespace) -> int:
    from strokeseg.evaluation.ensemble import evaluate, print_summary

    baselines = _baselines_of(options)
    experiment = cli.experiment_of(options)
    with cli.logging_to(experiment.log_folder / "evaluate.log"):
        summary = evaluate(
            experiment,
            device_of(options),
            on=options.on,
            policy=options.policy,
            baselines=baselines,
        )
    print_summary(summary)
    print(f"All scores: {experiment.metrics_csv(options.on)}")
    given = [f"({name})" for name in baselines]
    failed = [case for case in summary["baselines_failed"] if case.endswith(tuple(given))]
    return cli.SOME_FAILED if summary["failed"] or failed else cli.DONE


def _baselines_of(options: argparse.Namespace) -> dict[str, Path]:
    folders, names = options.predictions, options.name
    if len(folders) != len(names) or len(set(names)) != len(names):
        raise UserError(
            f"--predictions and --name: each folder needs one name of its own, got "
            f"{len(folders)} folders and {', '.join(names) or 'no name'}"
        )
    return dict(zip(names, folders, strict=True))


if __name__ == "__main__":
    sys.exit(main())
