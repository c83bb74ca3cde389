"""The report as Markdown, for committing beside an experiment: the page's words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strokeseg.reporting.facts import Facts
from strokeseg.reporting.headline import basis, cautions, headline
from strokeseg.reporting.result_tables import disagreement_text, failed_table, result_tables
from strokeseg.reporting.search_tables import (
    board_table,
    choice_table,
    comparison_lines,
    protocol_table,
)
from strokeseg.reporting.table import Table, plain, table_markdown


def report_markdown(facts: Facts) -> str:
    """Return the report without its charts and pictures."""
    parts = [
        f"# {plain(facts.experiment.name)}: what was searched and scored",
        f"**{headline(facts)}**",
        basis(facts),
        "\n".join(f"- {plain(caution)}" for caution in cautions(facts)),
        "## Results",
        *(table_markdown(table) for table in result_tables(facts.summary)),
        "\n".join(f"- {plain(line)}" for line in comparison_lines(facts)),
        _unless_empty(failed_table(facts.summary)),
        disagreement_text(facts.summary),
        "## The choice of the ensemble" if facts.choice else "",
        _choice(facts.choice) if facts.choice else "",
        "## The search",
        *(table_markdown(board_table(axis, rows)) for axis, rows in facts.boards.items()),
        "## The protocol",
        table_markdown(protocol_table(facts)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _choice(choice: Mapping[str, Any]) -> str:
    return _unless_empty(choice_table(choice)) or f"Nothing was tried ({choice['method']})."


def _unless_empty(table: Table) -> str:
    return table_markdown(table) if table.rows else ""
