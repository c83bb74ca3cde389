"""Tables, and the two ways to write them: HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strokeseg.reporting.markup import Markup, tag

MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text under headings.

    Attributes:
        title: What it shows.
        columns: Headings; the first column names the rows.
        rows: One cell a column each.
        note: What to know when reading it, or nothing.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as a cell; nothing becomes a dash."""
    return MISSING if value is None else f"{value:.{digits}f}"


def table_html(table: Table) -> Markup:
    """Return a table that scrolls by itself where the page is too narrow for it."""
    head = tag("tr", *(tag("th", column, scope="col") for column in table.columns))
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others))
        for first, *others in table.rows
    ]
    grid = tag("table", tag("caption", table.title), tag("thead", head), tag("tbody", *body))
    note = tag("p", table.note, class_="note") if table.note else None
    return tag("div", tag("div", grid, class_="scroll", tabindex="0"), note, class_="table")


def table_markdown(table: Table) -> str:
    """Return a Markdown table under its title; the first column is left, the others right."""
    rule = [":--", *["--:"] * (len(table.columns) - 1)]
    rows = [[_cell(cell) for cell in row] for row in (table.columns, *table.rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])]
    note = f"\n\n{plain(table.note)}" if table.note else ""
    return f"**{plain(table.title)}**\n\n" + "\n".join(lines) + note


def plain(text: str) -> str:
    """Return text that Markdown shows as it is: no HTML, no line breaks."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")
