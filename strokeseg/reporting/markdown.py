"""The report as Markdown, to be committed beside the experiment: the page without its plots."""

from __future__ import annotations

from collections.abc import Sequence

from strokeseg.records.summary import interval_text
from strokeseg.reporting import tables, wording
from strokeseg.reporting.findings import Findings
from strokeseg.reporting.markdown_text import markdown_table, plain
from strokeseg.reporting.tables import Table


def report_markdown(findings: Findings) -> str:
    """Return the report of a finished experiment."""
    parts = [
        f"# {plain(findings.experiment.name)}: what was searched and scored",
        f"**Dice {interval_text(findings.dice)}.** {wording.headline(findings)}; in brackets the "
        "95 % interval over patients.",
        *map(plain, wording.cautions(findings)),
        "## Unseen test cases" if findings.on_test else "## Validation cases: no test",
        _table(tables.methods_table(findings, *tables.MAIN_KINDS)),
        wording.accuracy(findings),
        _list(wording.comparison_notes(findings)),
        _list([f"failed: {case}: {why}" for case, why in findings.failed.items()]),
    ]
    if findings.summary["tests"]:
        parts += [_table(tables.tests_table(findings)), wording.tests_note(findings)]
    parts += [
        *("### Lesions", _table(tables.lesions_table(findings))),
        *("### By the volume of the true lesion", _table(tables.sizes_table(findings))),
        *("### Every case", _table(tables.cases_table(findings))),
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
            _table(tables.board_table(rows)),
        ]
    if findings.importances:
        parts += ["### Importances", _table(tables.importances_table(findings))]
    parts += [
        "## The protocol",
        _table(tables.sides_table(findings)),
        _table(tables.provenance_table(findings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _choice(findings: Findings) -> list[str]:
    said = [plain(note) for note in wording.choice_notes(findings)]
    if findings.choice is not None and findings.choice["steps"]:
        said.insert(1, _table(tables.steps_table(findings.choice)))
    return [*said, _table(tables.members_table(findings))]


def _table(table: Table) -> str:
    return markdown_table(table.columns, table.rows)


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)
