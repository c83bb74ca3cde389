"""Simulate cases of ischemic stroke, in the folder layout of ISLES 2015 SISS.

Real anatomy (the ICBM152 tissue maps that nilearn ships), bent and scanned again for every
subject, with lesions and with things that only look like one. Equal seeds give equal bytes.
Without options it makes the cases that the experiment asks for; with --output, any.

    strokeseg phantom
    strokeseg phantom --output cases --cases 28 --spacing-mm 1 --seed 7
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("phantom", __doc__)
    cli.add_experiment_options(parser)
    parser.add_argument("--output", metavar="FOLDER", help="make cases there, of no experiment")
    parser.add_argument("--cases", type=int, help="number of cases (default: 16)")
    parser.add_argument(
        "--spacing-mm", type=float, help="isotropic voxel size; 1 gives SISS size (default: 2)"
    )
    parser.add_argument("--seed", type=int, help="equal seeds give equal bytes (default: 0)")
    parser.add_argument(
        "--lesion-free-share", type=float, help="share of cases without a lesion (default: 0)"
    )
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    from strokeseg.preparation.steps import make_cases, simulate
    from strokeseg.records.config import PhantomConfig
    from strokeseg.records.record import parse_record

    given = {
        name: getattr(options, name)
        for name in PhantomConfig.model_fields
        if getattr(options, name) is not None
    }
    if options.output is not None:
        config = parse_record(PhantomConfig, given, "phantom")
        folder = Path(options.output).absolute()
        simulate(folder, config, cli.progress)
        print(f"{config.cases} cases in {folder}")
        return cli.DONE
    if given:
        raise UserError(
            f"{', '.join(given)}: an experiment's cases are as its YAML file says; "
            "change it there, or give --output to make other cases"
        )
    experiment = cli.experiment_of(options)
    made = make_cases(experiment, cli.progress)
    print(f"{'Made' if made else 'Nothing to do: there are'} cases in {experiment.data_path}")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
