"""The report as Markdown, to be committed beside the experiment: the page without its plots."""

from __future__ import annotations

from collections.abc import Sequence

from strokeseg.reporting import tables, wording
from strokeseg.reporting.findings import Findings
from strokeseg.reporting.tables import Table
from strokeseg.summary import interval_text


def report_markdown(findings: Findings) -> str:
    """Return the report of a finished experiment."""
    parts = [
        f"# {_plain(findings.experiment.name)}: what was searched and scored",
        f"**Dice {interval_text(findings.dice)}.** {wording.headline(findings)}; in brackets the "
        "95 % interval over patients.",
        *map(_plain, wording.cautions(findings)),
        "## Unseen test cases" if findings.on_test else "## Validation cases: no test",
        markdown_table(tables.methods_table(findings, *tables.MAIN_KINDS)),
        wording.accuracy(findings),
        _list(wording.comparison_notes(findings)),
        _list([f"failed: {case}: {why}" for case, why in findings.failed.items()]),
    ]
    if findings.summary["tests"]:
        parts += [markdown_table(tables.tests_table(findings)), wording.tests_note(findings)]
    parts += [
        *("### Lesions", markdown_table(tables.lesions_table(findings))),
        *("### By the volume of the true lesion", markdown_table(tables.sizes_table(findings))),
        *("### Every case", markdown_table(tables.cases_table(findings))),
        wording.disagreement_note(findings),
        "## How the ensemble was chosen",
        *_choice(findings),
        "## The search",
        wording.search_note(findings),
    ]
    for axis, rows in findings.boards.items():
        parts += [
            f"### {axis}",
            *wording.axis_notes(rows),
            markdown_table(tables.board_table(rows)),
        ]
    if findings.importances:
        parts += ["### Importances", markdown_table(tables.importances_table(findings))]
    parts += [
        "## The protocol",
        markdown_table(tables.sides_table(findings)),
        markdown_table(tables.provenance_table(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table; the first column is left, the others right."""
    rule = [":--", *["--:"] * (len(table.columns) - 1)]
    lines = [[_plain(cell) for cell in cells] for cells in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [lines[0], rule, *lines[1:]])


def _choice(findings: Findings) -> list[str]:
    said = [_plain(note) for note in wording.choice_notes(findings)]
    if findings.choice is not None and findings.choice["steps"]:
        said.insert(1, markdown_table(tables.steps_table(findings.choice)))
    return [*said, markdown_table(tables.members_table(findings))]


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(sentence)}" for sentence in sentences)


def _plain(text: str) -> str:
    """Escape what Markdown would take for a cell's end, an element or a line's end."""
    escaped = text.replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())
