"""Run a whole experiment: prepare, search all axes, promote, evaluate, report, export.

Steps that are done are skipped, so that the same command goes on after an interruption.

    strokeseg run
    strokeseg run --experiment isles2015 --data /data/SISS2015_Training --trials 20
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from strokeseg import cli
from strokeseg.ensemble.devices import add_device_option, device_of
from strokeseg.evaluate import add_side_option
from strokeseg.tuning.options import add_search_options, prepared_slices, search_settings

if TYPE_CHECKING:
    from strokeseg.records.experiment import Experiment
    from strokeseg.records.scores import Summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("run", __doc__)
    cli.add_experiment_options(parser)
    cli.add_data_option(parser)
    add_device_option(parser)
    add_search_options(parser)
    add_side_option(parser)
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave invalid cases out and list them"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    cli.add_address_option(parser)
    options = parser.parse_args(given)
    command = shlex.join(["strokeseg", "run", *given])
    return cli.run_command(lambda: _work(options, command), options.address)


def _work(options: argparse.Namespace, command: str) -> int:
    from strokeseg.compute.session import ray_session
    from strokeseg.evaluation.cases import cases_to_score
    from strokeseg.imaging.slices import AXES
    from strokeseg.prepare import prepare_experiment
    from strokeseg.records.preparation import read_preparation
    from strokeseg.search import print_results
    from strokeseg.tuning.search import Search

    experiment = cli.experiment_of(options)
    if options.device == "cuda":
        # Else it would be found hours later that there is none.
        device_of(options)
    settings = search_settings(experiment, AXES, options)
    with (
        cli.logging_to(experiment.log_folder / "run.log"),
        ExitStack() as session,
    ):
        search = Search(experiment, settings, session)
        session.enter_context(ray_session(experiment.folder, experiment.data_path))
        search.check_encoders()
        prepare_experiment(experiment, skip_invalid=options.skip_invalid, overwrite=False)
        preparation = read_preparation(experiment)
        # Else it would be found hours later.
        cases_to_score(experiment, preparation, options.on)
        data = prepared_slices(experiment, preparation, settings.budget)
        print_results(experiment, search.run(data, cli.progress))
        summary = _conclude(experiment, options, command)
    _print_summary(experiment, options.on, summary)
    return cli.SOME_FAILED if summary["failed"] else cli.DONE


def _conclude(experiment: Experiment, options: argparse.Namespace, command: str) -> Summary:
    """Do all that comes after the search, which had no use for PyTorch."""
    from strokeseg.evaluation.ensemble import evaluate
    from strokeseg.export import export
    from strokeseg.records.summary import current_summary
    from strokeseg.report import report
    from strokeseg.selection.promotion import promote

    device = device_of(options)
    promote(experiment, device)
    summary = current_summary(experiment, (options.on,))
    if summary is None or summary["failed"]:
        summary = evaluate(experiment, device, on=options.on)
    report(experiment, command)
    export(experiment, experiment.bundle_zip)
    return summary


def _print_summary(experiment: Experiment, on: str, summary: Summary) -> None:
    from strokeseg.evaluation.ensemble import print_summary

    print_summary(summary)
    masks = experiment.evaluation_folder(on) / "masks"
    print(
        f"Next: read {experiment.report_html}; look at the masks in {masks} over their cases in "
        f"{experiment.data_path}; segment new cases with\n"
        f"  strokeseg predict --bundle {experiment.bundle_zip} --input CASES --output MASKS"
    )


if __name__ == "__main__":
    sys.exit(main())
