"""Check the cases, split them by patient, and slice them into Parquet.

Every case is checked first; an invalid one stops the command with one line that says why
(all of them in prepared/validation.csv), unless --skip-invalid leaves it out. Patients are
then divided into folds and a locked test set, once and for all, in prepared/splits.json.
One scan under two patients' names is refused, also when it was re-saved, flipped or
resampled; prepared/similarity.csv tells for every case which one of another patient
resembles it most.
Running it again does nothing when nothing has changed, and says what has when something did.

    strokeseg prepare
    strokeseg prepare --experiment isles2015 --data /data/SISS2015_Training
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strokeseg import cli

if TYPE_CHECKING:
    from strokeseg.records.experiment import Experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("prepare", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave invalid cases out and list them"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="prepare and split again what has changed"
    )
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options), options.address)


def _work(options: argparse.Namespace) -> int:
    experiment = cli.experiment_of(options)
    with cli.logging_to(experiment.log_folder / "prepare.log"):
        prepare_experiment(
            experiment, skip_invalid=options.skip_invalid, overwrite=options.overwrite
        )
    return cli.DONE


def prepare_experiment(experiment: Experiment, *, skip_invalid: bool, overwrite: bool) -> None:
    """Prepare an experiment, its simulated cases first, and print what came of it."""
    from strokeseg.imaging.cases import TEST
    from strokeseg.preparation.steps import make_cases, prepare

    if experiment.config.data.phantom is not None:
        make_cases(experiment, cli.progress)
    outcome = prepare(
        experiment, skip_invalid=skip_invalid, overwrite=overwrite, progress=cli.progress
    )
    if outcome is None:
        print(f"Nothing to do: {experiment.prepared_folder} is up to date")
        return
    preparation, left_out, audit = outcome
    if left_out:
        print(f"Left out {len(left_out)} invalid cases:\n" + "\n".join(left_out))
    print(audit)
    test = preparation.names(TEST)
    print(
        f"Prepared {len(preparation.cases)} cases in {experiment.prepared_folder}: "
        f"{len(preparation.cases) - len(test)} in folds, {len(test)} locked for the test"
    )


if __name__ == "__main__":
    sys.exit(main())
