"""The report as one HTML page that loads nothing from a network.

The page is the template `report.html.j2`; its style, plots, pictures and the viewer with its
script lie in the page itself, and its content security policy forbids everything else. Text is
escaped by Jinja2: no name of a case and no reason of a failure can become an element of the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from strokeseg.errors import CaseError
from strokeseg.imaging.metric_names import METRICS, OF_METHODS
from strokeseg.records.summary import VOTE
from strokeseg.reporting import plots, tables, wording
from strokeseg.reporting.pictures import cases_to_show, data_uri, draw_planes, see_case
from strokeseg.reporting.results import Results
from strokeseg.reporting.viewer import Viewer, brainsprite, viewer_of


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownCase:
    """A scored case in pictures.

    Attributes:
        title: Which it is, and its Dice.
        facts: The title and the volumes of its lesion.
        planes_uri: The picture of its three planes.
        viewer: Shows it slice by slice; None where a file cannot be read.
        fault: Why it cannot be shown; empty where it can.
    """

    title: str
    facts: str = ""
    planes_uri: str = ""
    viewer: Viewer | None = None
    fault: str = ""


def report_page(results: Results) -> str:
    """Return the whole page.

    Raises:
        UserError: When the viewer is not installed.
    """
    loader = PackageLoader("strokeseg", "reporting")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def trusted(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])

    return environment.get_template("report.html.j2").render(
        results=results,
        cases=list(_shown_cases(results)),
        settings=results.experiment.config_path.read_text(encoding="utf-8"),
        metrics=METRICS,
        cards=[metric for metric in OF_METHODS if metric != "dice"],
        plots=plots,
        tables=tables,
        wording=wording,
        style=trusted("report.css"),
        brainsprite=Markup(brainsprite()),
        viewer_script=trusted("viewer.js"),
    )


def _shown_cases(results: Results) -> Iterator[ShownCase]:
    for which, row in cases_to_show(results.rows(VOTE)).items():
        title = f"The {which} case, {row.case}: Dice {tables.number(row.values['dice'])}"
        try:
            seen = see_case(results, row.case)
        except CaseError as error:
            # The scores stand whether or not the case's files are still where they were.
            yield ShownCase(title=title, fault=str(error))
            continue
        yield ShownCase(
            title=title,
            facts=(
                f"{title}; {tables.number(row.values['true_ml'], 1)} ml of lesion, "
                f"{tables.number(row.values['predicted_ml'], 1)} ml predicted"
            ),
            planes_uri=data_uri(draw_planes(seen), "png"),
            viewer=viewer_of(seen, f"viewer-{which}"),
        )
