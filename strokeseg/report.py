"""Write what was searched and scored as one page, and as Markdown to be committed.

The page is one HTML file that needs no other and no network: the headline with its interval,
every table, plots, the worst, the median and the best case in pictures and in a viewer, and the
protocol. It prints, and it is light or dark as the browser is.

    strokeseg report --experiment siss-like
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strokeseg import cli
from strokeseg.storage.files import write_text

if TYPE_CHECKING:
    from strokeseg.records.experiment import Experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("report", __doc__)
    cli.add_experiment_options(parser)
    options = parser.parse_args(arguments)

    def work() -> int:
        experiment = cli.experiment_of(options)
        print(f"Report: {report(experiment)}\nAs Markdown: {experiment.report_md}")
        return cli.DONE

    return cli.run_command(work)


def report(experiment: Experiment, command: str | None = None) -> Path:
    """Write the report and return the page's path.

    Args:
        command: The command that made the results; None where they were several.

    Raises:
        UserError: When the experiment is not evaluated yet.
    """
    from strokeseg.reporting.markdown import report_markdown
    from strokeseg.reporting.page import report_page
    from strokeseg.reporting.results import read_results

    made_by = command or "prepare, search, promote and evaluate, command by command"
    results = read_results(experiment, made_by)
    write_text(experiment.report_html, report_page(results))
    write_text(experiment.report_md, report_markdown(results))
    return experiment.report_html


if __name__ == "__main__":
    sys.exit(main())
