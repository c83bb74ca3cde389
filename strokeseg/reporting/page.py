"""The report as one HTML page: it loads nothing, from no file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR
from strokeseg.reporting.case_figures import agreement_figure, disagreement_figure, size_figure
from strokeseg.reporting.charts import Figure
from strokeseg.reporting.facts import Facts
from strokeseg.reporting.headline import basis, cautions, headline
from strokeseg.reporting.markup import Markup, join, png_uri, tag
from strokeseg.reporting.method_figure import method_figure
from strokeseg.reporting.pictures import planes_picture
from strokeseg.reporting.result_tables import failed_table, result_tables
from strokeseg.reporting.search_figures import history_figure, importance_figure, parallel_figure
from strokeseg.reporting.search_tables import (
    board_table,
    choice_table,
    comparison_lines,
    protocol_table,
)
from strokeseg.reporting.sights import Sight
from strokeseg.reporting.style import STYLE
from strokeseg.reporting.table import table_html
from strokeseg.reporting.viewer import BOTH_COLOUR, viewer, viewer_script

# Nothing may be fetched, whatever a name or a setting of the experiment should hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_SECTIONS = {
    "results": "Results",
    "cases": "Cases",
    "choice": "The choice of the ensemble",
    "search": "The search",
    "protocol": "The protocol",
}


def report_html(facts: Facts, sights: Sequence[Sight], missing: Mapping[str, str]) -> str:
    """Return the report.

    Args:
        facts: What the experiment has left.
        sights: The cases to show.
        missing: By case, why it cannot be shown.
    """
    title = f"{facts.experiment.name}: what was searched and scored"
    links = [tag("a", text, href=f"#{name}") for name, text in _SECTIONS.items()]
    body = tag(
        "body",
        tag("h1", title),
        tag("nav", *links, aria_label="Sections"),
        _headline(facts),
        _section("results", *_results(facts)),
        _section("cases", *_cases(sights, missing)),
        _section("choice", *_choice(facts)),
        _section("search", *_search(facts)),
        _section("protocol", tag("div", table_html(protocol_table(facts)), class_="wide")),
        viewer_script() if sights else None,
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(name: str, *content: Markup | None) -> Markup:
    return tag("section", tag("h2", _SECTIONS[name]), *content, id=name)


def _headline(facts: Facts) -> Markup:
    return join(
        tag(
            "div",
            tag("p", headline(facts), class_="score"),
            tag("p", basis(facts)),
            class_="headline",
        ),
        tag("ul", *(tag("li", caution) for caution in cautions(facts)), class_="caution"),
    )


def _results(facts: Facts) -> list[Markup]:
    failed = failed_table(facts.summary)
    figures = [
        method_figure(facts.summary),
        size_figure(facts.vote_scores),
        agreement_figure(facts.vote_scores),
        disagreement_figure(facts.summary),
    ]
    lines = [tag("li", line) for line in comparison_lines(facts)]
    return [
        _figures(figures),
        *(table_html(table) for table in result_tables(facts.summary)),
        *([tag("ul", *lines, class_="note")] if lines else []),
        *([tag("div", table_html(failed), class_="wide")] if failed.rows else []),
    ]


def _cases(sights: Sequence[Sight], missing: Mapping[str, str]) -> list[Markup]:
    colours = {
        "truth, or truth only": TRUTH_COLOUR,
        "prediction, or prediction only": PREDICTION_COLOUR,
        "both (viewer)": BOTH_COLOUR,
    }
    key = [
        join(tag("span", class_="key", style=f"background: rgb{colour}"), meaning)
        for meaning, colour in colours.items()
    ]
    notes = [tag("p", f"Case {case} cannot be shown: {why}") for case, why in missing.items()]
    legend = [
        tag(
            "p",
            "By the Dice of the vote. Slices go through the largest lesion; R: the patient's "
            "right, A: anterior.",
            *key,
            class_="note",
        )
    ]
    return [*(legend if sights else []), *(_sight(sight) for sight in sights), *notes]


def _sight(sight: Sight) -> Markup:
    pictures = [
        tag(
            "img",
            class_="planes",
            src=png_uri(planes_picture(sight, channel)),
            alt=f"Case {sight.case}, {sequence}: an axial, a coronal and a sagittal slice through "
            "the largest lesion, the truth outlined in blue and the prediction in orange; "
            f"Dice {sight.dice:.3f}",
        )
        for channel, sequence in enumerate(sight.sequences)
    ]
    return tag(
        "div",
        tag("h3", f"{sight.rank.capitalize()}: case {sight.case}, Dice {sight.dice:.3f}"),
        tag("p", f"Sequences from above: {', '.join(sight.sequences)}.", class_="note"),
        *pictures,
        tag(
            "div",
            tag(
                "p",
                f"All slices ({sight.sequences[0]}): click, or move the sliders. "
                "On sagittal slices the face is on the right here.",
                class_="note",
            ),
            viewer(sight, f"viewer-{sight.rank}"),
            class_="viewer-part",
        ),
        class_="sight",
    )


def _choice(facts: Facts) -> list[Markup]:
    if facts.choice is None:
        return [tag("p", "This ensemble was promoted before choices were recorded.")]
    table = choice_table(facts.choice)
    if table.rows:
        return [table_html(table)]
    return [tag("p", f"Nothing was tried ({facts.choice['method']}).")]


def _search(facts: Facts) -> list[Markup]:
    parts: list[Markup] = []
    for axis, rows in facts.boards.items():
        figures = [
            history_figure(axis, rows),
            importance_figure(axis, facts.importances[axis]),
            parallel_figure(axis, rows),
        ]
        parts += [
            tag("h3", axis.capitalize()),
            table_html(board_table(axis, rows)),
            _figures(figures),
        ]
        if not facts.importances[axis]:
            parts.append(
                tag("p", f"{axis}: too few trials tell which parameter mattered.", class_="note")
            )
    return parts


def _figures(figures: Sequence[Figure | None]) -> Markup:
    shown = [figure.html() for figure in figures if figure is not None]
    return tag("div", *shown, class_="figures")
