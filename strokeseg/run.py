"""Run a whole experiment: prepare, search all axes, promote, evaluate, report, export.

Steps that are done are skipped, so that the same command goes on after an interruption.

    strokeseg run
    strokeseg run --experiment siss-like --data /data/SISS2015_Training --trials 40
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from strokeseg import cli
from strokeseg.evaluate import add_side_option, evaluate, print_summary
from strokeseg.experiment import Experiment
from strokeseg.export import export
from strokeseg.files import file_sha256, read_json
from strokeseg.imaging.slices import AXES
from strokeseg.learning.ensemble import RECORD_NAME
from strokeseg.preparation.record import read_preparation
from strokeseg.prepare import prepare_experiment
from strokeseg.promote import promote
from strokeseg.ray_session import ray_session
from strokeseg.report import report
from strokeseg.search import add_search_options, print_leaderboard, search_axis


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("run", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    cli.add_device_option(parser)
    add_search_options(parser)
    add_side_option(parser)
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave invalid cases out and list them"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    return cli.run_command(lambda: _work(options, shlex.join(["strokeseg", "run", *given])))


def _work(options: argparse.Namespace, command: str) -> int:
    experiment = cli.experiment_of(options)
    device = cli.device_of(options)
    with cli.logging_to(experiment.log_folder / "run.log"):
        with ray_session():
            prepare_experiment(experiment, skip_invalid=options.skip_invalid, overwrite=False)
            preparation = read_preparation(experiment)
            for axis in AXES:
                print_leaderboard(axis, search_axis(experiment, axis, preparation, options))
        promote(experiment)
        summary = _summary_of_this_ensemble(experiment, options.on) or evaluate(
            experiment, device, on=options.on
        )
        report(experiment, command)
        export(experiment, experiment.bundle_zip)
    print_summary(summary)
    cases = experiment.data_path
    print(
        f"Next: read {experiment.report_md}; look at a mask in {experiment.evaluation_folder}"
        f"/masks over its case in {cases}; segment new cases with\n"
        f"  strokeseg predict --bundle {experiment.bundle_zip} --input CASES --output MASKS"
    )
    return cli.SOME_FAILED if summary["failed"] else cli.DONE


def _summary_of_this_ensemble(experiment: Experiment, on: str) -> dict[str, Any] | None:
    """The summary, if the ensemble that is there now has been evaluated already."""
    if not experiment.summary_json.exists():
        return None
    summary: dict[str, Any] = read_json(experiment.summary_json)
    ensemble = file_sha256(experiment.ensemble_folder / RECORD_NAME)
    return summary if (summary["ensemble_sha256"], summary["on"]) == (ensemble, on) else None


if __name__ == "__main__":
    sys.exit(main())
