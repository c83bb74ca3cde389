"""Markdown: the words and tables of pages that are read as text."""

from __future__ import annotations

from collections.abc import Sequence


def plain(text: str) -> str:
    """Escape what Markdown would take for a cell's end, an element or a line's end."""
    escaped = text.replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text; the first column is left, the others right."""
    rule = [":--", *["--:"] * (len(columns) - 1)]
    head, *lines = ([plain(cell) for cell in cells] for cells in (columns, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])
