"""Measure what a split by slice would have reported, and what it is worth; nothing is searched.

The default configuration, and the best trial if there is a leaderboard, are trained twice on the
training folds: with slices divided at random, so that slices of one patient are in training and in
validation, and divided by patient. The score that each would have reported stands beside the score
on the patients of the validation fold, whom neither has seen. Data that is not prepared is prepared
first. Finished runs are kept: the same command goes on after an interruption.

    strokeseg measure-leakage --axis coronal
    strokeseg measure-leakage --axis axial --experiment siss-like --seeds 3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strokeseg import cli
from strokeseg.tuning.options import add_axis_option, add_trial_options, positive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("measure-leakage", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    add_axis_option(parser)
    parser.add_argument(
        "--seeds",
        type=positive,
        default=2,
        metavar="N",
        help="number of repetitions, each with another seed and inner fold (default: 2)",
    )
    add_trial_options(parser)
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options), options.address)


def _work(options: argparse.Namespace) -> int:
    from strokeseg.leakage.measurement import measure_leakage

    return max([measure_leakage(axis, options) for axis in dict.fromkeys(options.axis)])


if __name__ == "__main__":
    sys.exit(main())
