"""Write what was searched and scored as one page that needs no other file and no network.

The page, HTML, has the scores with their intervals, charts, and the worst, the median and the
best case as pictures and slice by slice. Words and tables are written as Markdown, too, for
committing.

    strokeseg report --experiment siss-like
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.experiment import Experiment
from strokeseg.files import write_text
from strokeseg.reporting.facts import read_facts
from strokeseg.reporting.markdown import report_markdown
from strokeseg.reporting.page import report_html
from strokeseg.reporting.sights import read_sights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("report", __doc__)
    cli.add_experiment_options(parser)
    options = parser.parse_args(arguments)

    def work() -> int:
        experiment = cli.experiment_of(options)
        print(f"Report: {report(experiment)}; its tables: {experiment.report_md}")
        return cli.DONE

    return cli.run_command(work)


def report(experiment: Experiment, command: str | None = None) -> Path:
    """Write the report and return the path of its page.

    Args:
        experiment: Which.
        command: The command that made the results; nothing for `strokeseg run`.

    Raises:
        UserError: When the experiment is not evaluated yet.
    """
    facts = read_facts(experiment, command)
    sights, missing = read_sights(facts)
    for case, why in missing.items():
        print(f"not shown: case {case}: {why}", file=sys.stderr)
    write_text(experiment.report_html, report_html(facts, sights, missing))
    write_text(experiment.report_md, report_markdown(facts))
    return experiment.report_html


if __name__ == "__main__":
    sys.exit(main())
