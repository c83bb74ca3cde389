"""Write what was searched and scored as one Markdown page.

strokeseg report --experiment siss-like
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.files import write_text
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import read_leaderboard
from strokeseg.learning.ensemble_record import RECORD_NAME, read_ensemble_record
from strokeseg.pages import report_page
from strokeseg.preparation.record import read_preparation
from strokeseg.summary import current_summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("report", __doc__)
    cli.add_experiment_options(parser)
    options = parser.parse_args(arguments)

    def work() -> int:
        print(f"Report: {report(cli.experiment_of(options))}")
        return cli.DONE

    return cli.run_command(work)


def report(experiment: Experiment, command: str | None = None) -> Path:
    """Write the report and return its path.

    Args:
        experiment: Which.
        command: The command that made the results; nothing for `strokeseg run`.

    Raises:
        UserError: When the experiment is not evaluated yet.
    """
    summary = current_summary(experiment) if experiment.ensemble_folder.exists() else None
    if summary is None:
        raise UserError(
            f"{experiment.summary_json('test')}: the ensemble that is there has not been scored; "
            f"run strokeseg evaluate --experiment {experiment.name} first"
        )
    page = report_page(
        experiment,
        read_preparation(experiment),
        {axis: read_leaderboard(experiment.leaderboard_csv(axis)) for axis in AXES},
        read_ensemble_record(experiment.ensemble_folder / RECORD_NAME),
        summary,
        command or f"strokeseg run --experiment {experiment.name}",
    )
    write_text(experiment.report_md, page)
    return experiment.report_md


if __name__ == "__main__":
    sys.exit(main())
