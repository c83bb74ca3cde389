"""The report as one HTML page that loads nothing from a network.

The style, the plots, the pictures and the viewer with its script lie in the page itself, and its
content security policy forbids everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from strokeseg.errors import CaseError
from strokeseg.imaging.metric_names import METRICS, OF_METHODS
from strokeseg.records.summary import VOTE, ScoreRow
from strokeseg.reporting import plots, search_plots, tables, wording
from strokeseg.reporting.markup import Html, join, tag
from strokeseg.reporting.pictures import cases_to_show, data_uri, draw_planes, see_case
from strokeseg.reporting.results import Results
from strokeseg.reporting.style import STYLE
from strokeseg.reporting.tables import Table
from strokeseg.reporting.viewer import viewer, viewer_script

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report_page(results: Results) -> str:
    """Return the whole page.

    Raises:
        UserError: When the viewer is not installed.
    """
    sections = {
        "scores": ("Scores", _scores),
        "cases": ("Cases", _cases),
        "volumes": ("Size, volume and disagreement", _volumes),
        "choice": ("How the ensemble was chosen", _choice),
        "search": ("The search", _search),
        "protocol": ("Protocol", _protocol),
    }
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{results.experiment.name}: strokeseg report"),
        tag("style", Html(STYLE)),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", f"{results.experiment.name}: ischemic stroke lesion segmentation"),
            *_headline(results),
            tag(
                "nav", *(tag("a", title, href=f"#{name}") for name, (title, _) in sections.items())
            ),
        ),
        tag(
            "main",
            *(
                tag("section", tag("h2", title), *content(results), id=name)
                for name, (title, content) in sections.items()
            ),
        ),
        viewer_script(),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _headline(results: Results) -> list[Html]:
    dice = results.dice
    interval = (
        f"95 % interval over patients {dice['low']:.3f} to {dice['high']:.3f}"
        if dice["low"] is not None
        else "no interval: it takes two patients"
    )
    vote = results.summary["methods"][VOTE]
    cards = [
        tag(
            "div",
            tag("span", METRICS[metric].heading),
            *_mean_and_interval(
                tables.mean_text(vote["metrics"][metric], vote["cases"], 2), "b", "span"
            ),
            class_="card",
        )
        for metric in OF_METHODS
        if metric != "dice"
    ]
    return [
        tag(
            "div",
            tag("strong", tables.number(dice["mean"])),
            tag("span", f"Dice ({interval})"),
            class_="headline",
        ),
        tag("p", f"{wording.headline(results)}."),
        tag("div", *_paragraphs(wording.cautions(results)), class_="warning"),
        tag("div", *cards, class_="cards"),
    ]


def _scores(results: Results) -> list[Html]:
    parts = [
        _plot(
            plots.dice_by_method(results),
            "Every point is a case, the diamond the mean, the bar its interval over patients.",
        ),
        _table(tables.methods_table(results, *tables.MAIN_KINDS), own=VOTE),
        tag("p", wording.accuracy(results), class_="note"),
        *_paragraphs(wording.comparison_notes(results), "note"),
        _more("Every member by itself", _table(tables.methods_table(results, "member"))),
        _more("What the metrics mean", _words(tables.definitions_table())),
    ]
    if results.summary["tests"]:
        parts += [
            tag("h3", "Differences"),
            _table(tables.tests_table(results)),
            tag("p", wording.tests_note(results), class_="note"),
        ]
    parts += [
        tag("h3", "Lesions found, missed and made up"),
        _table(tables.lesions_table(results), own=VOTE),
    ]
    if failed := results.failed:
        listed = Table(columns=("case", "why"), rows=tuple(failed.items()))
        parts += [tag("h3", "Failed cases"), _words(listed)]
    return parts


def _cases(results: Results) -> list[Html]:
    lines = tag(
        *("p", "Each plane is the slice with most of the true lesion. "),
        *(tag("span", "Blue", class_="truth"), ": the outline of the true lesion; "),
        *(tag("span", "orange", class_="prediction"), ": that of the predicted one. "),
        "R: the patient's right; A: the front.",
        class_="note",
    )
    rows = cases_to_show(results.rows(VOTE))
    return [
        lines,
        *(_picture(results, which, row) for which, row in rows.items()),
        tag("h3", "Every case"),
        _table(tables.cases_table(results)),
    ]


def _picture(results: Results, which: str, row: ScoreRow) -> Html:
    words = f"The {which} case, {row.case}: Dice {tables.number(row.values['dice'])}"
    try:
        seen = see_case(results, row.case)
    except CaseError as error:
        # The scores stand whether or not the case's files are still where they were.
        return tag("p", f"{words}. It cannot be shown: {error}", class_="note")
    facts = (
        f"{words}; {tables.number(row.values['true_ml'], 1)} ml of lesion, "
        f"{tables.number(row.values['predicted_ml'], 1)} ml predicted"
    )
    image = tag(
        "img",
        src=data_uri(draw_planes(seen), "png"),
        alt=f"{facts}. Axial, coronal and sagittal slice of {seen.sequence} with both outlines.",
    )
    return join(
        [
            tag("h3", words),
            tag(
                "figure",
                image,
                tag("figcaption", f"{facts}. {seen.sequence}; axial, coronal, sagittal."),
                class_="picture",
            ),
            viewer(seen, f"viewer-{which}"),
        ]
    )


def _volumes(results: Results) -> list[Html]:
    if not results.rows():
        return [tag("p", f"By the policy {results.summary['policy']} no case has a Dice.")]
    return [
        tag(
            "div",
            _plot(
                plots.dice_by_volume(results),
                wording.volume_note(results),
            ),
            _plot(
                plots.volume_agreement(results),
                "Above 0 the ensemble sees too much lesion, below 0 too little; the limits of "
                "agreement are 1.96 standard deviations from the bias.",
            ),
            _plot(plots.disagreement_and_error(results), wording.disagreement_note(results)),
            class_="plots",
        ),
        tag("h3", "Dice by the volume of the true lesion"),
        _table(tables.sizes_table(results)),
    ]


def _choice(results: Results) -> list[Html]:
    parts = _paragraphs(wording.choice_notes(results))
    if results.choice is not None and results.choice["steps"]:
        parts.insert(1, _table(tables.steps_table(results.choice)))
    return [*parts, _words(tables.members_table(results))]


def _search(results: Results) -> list[Html]:
    boards = results.boards
    parts = [
        tag("p", wording.search_note(results)),
        _plots(
            (f"{axis}: {words}", search_plots.history(axis, rows))
            for axis, rows in boards.items()
            for words in ["the score of every trial, and the best so far"]
        ),
    ]
    if results.importances:
        parts.append(
            _plots(
                (
                    f"{axis}: which parameters set the best trials apart",
                    search_plots.importances(axis, shares),
                )
                for axis, shares in results.importances.items()
            )
        )
    if missing := [axis for axis in boards if axis not in results.importances]:
        words = f"Too few trials to tell which parameters mattered: {', '.join(missing)}."
        parts.append(tag("p", words, class_="note"))
    for axis, rows in boards.items():
        parts += [
            tag("h3", f"The best trials of the {axis} axis"),
            *_paragraphs(wording.axis_notes(rows), "note"),
            _table(tables.board_table(rows)),
        ]
        if (parallel := search_plots.parallel_coordinates(axis, rows)) is not None:
            words = "Every line is a trial; the stronger, the better; the best is orange and thick."
            parts.append(_plot(parallel, words, "plot wide"))
    return parts


def _protocol(results: Results) -> list[Html]:
    settings = results.experiment.config_path.read_text(encoding="utf-8")
    return [
        _table(tables.subsets_table(results), kind="words"),
        _words(tables.provenance_table(results)),
        _more("The experiment's settings", tag("pre", settings)),
    ]


def _plots(drawn: Iterable[tuple[str, Html]]) -> Html:
    return tag("div", *(_plot(plot, words) for words, plot in drawn), class_="plots")


def _plot(plot: Html, words: str, kind: str = "plot") -> Html:
    return tag("figure", tag("div", plot, class_=kind), tag("figcaption", words))


def _more(title: str, content: Html) -> Html:
    return tag("details", tag("summary", title), content)


def _words(table: Table) -> Html:
    return _table(table, kind="words")


def _table(table: Table, *, own: str | None = None, kind: str | None = None) -> Html:
    """Return a table; the row of the method `own` stands out."""
    cell: Callable[[str], Html] = (
        (lambda words: tag("td", words))
        if kind == "words"
        else (lambda words: tag("td", *_mean_and_interval(words, None, "small")))
    )
    head = tag("tr", *(tag("th", title, scope="col") for title in table.columns))
    rows = (
        tag("tr", *(cell(words) for words in row), class_="own" if row[0] == own else None)
        for row in table.rows
    )
    whole = tag("table", tag("thead", head), tag("tbody", *rows), class_=kind)
    return tag("div", whole, class_="scroll")


def _mean_and_interval(words: str, mean_tag: str | None, interval_tag: str) -> list[Html]:
    """Put what is in brackets on a line of its own: `0.61 (0.52 to 0.70)`."""
    mean, bracket, interval = words.partition(" (")
    shown = tag(mean_tag, mean) if mean_tag else join([mean])
    return [shown, tag(interval_tag, f"{bracket.strip()}{interval}")] if bracket else [shown]


def _paragraphs(sentences: Iterable[str], kind: str | None = None) -> list[Html]:
    return [tag("p", sentence, class_=kind) for sentence in sentences]
