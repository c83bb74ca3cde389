"""The report as Markdown, to be committed beside the experiment: the page without its plots."""

from __future__ import annotations

from collections.abc import Sequence

from strokeseg.records.summary import interval_text
from strokeseg.reporting import tables, wording
from strokeseg.reporting.markdown_text import markdown_table, plain
from strokeseg.reporting.results import Results
from strokeseg.reporting.tables import Table


def report_markdown(results: Results) -> str:
    """Return the report of a finished experiment."""
    parts = [
        f"# {plain(results.experiment.name)}: what was searched and scored",
        f"**Dice {interval_text(results.dice)}.** {wording.headline(results)}; in brackets the "
        "95 % interval over patients.",
        *map(plain, wording.cautions(results)),
        "## Unseen test cases" if results.on_test else "## Validation cases: no test",
        _table(tables.methods_table(results, *tables.MAIN_KINDS)),
        wording.accuracy(results),
        _list(wording.comparison_notes(results)),
        _list([f"failed: {case}: {why}" for case, why in results.failed.items()]),
    ]
    if results.summary["tests"]:
        parts += [_table(tables.tests_table(results)), wording.tests_note(results)]
    parts += [
        *("### Lesions", _table(tables.lesions_table(results))),
        *("### By the volume of the true lesion", _table(tables.sizes_table(results))),
        *("### Every case", _table(tables.cases_table(results))),
        wording.disagreement_note(results),
        "## How the ensemble was chosen",
        *_choice(results),
        "## The search",
        wording.search_note(results),
    ]
    for axis, rows in results.boards.items():
        parts += [
            f"### {axis}",
            *wording.axis_notes(rows),
            _table(tables.board_table(rows)),
        ]
    if results.importances:
        parts += ["### Importances", _table(tables.importances_table(results))]
    parts += [
        "## The protocol",
        _table(tables.subsets_table(results)),
        _table(tables.provenance_table(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _choice(results: Results) -> list[str]:
    lines = [plain(note) for note in wording.choice_notes(results)]
    if results.choice is not None and results.choice["steps"]:
        lines.insert(1, _table(tables.steps_table(results.choice)))
    return [*lines, _table(tables.members_table(results))]


def _table(table: Table) -> str:
    return markdown_table(table.columns, table.rows)


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)
