"""A chart of what each method scored: the ensemble beside its parts and its rivals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strokeseg.reporting.charts import WIDTH, Figure, Scale, Shape, line, mark, svg, text
from strokeseg.reporting.markup import Markup
from strokeseg.reporting.result_tables import p_text
from strokeseg.reporting.table import MISSING, Table
from strokeseg.summary import VOTE, interval_text

_ROW, _TOP, _LEFT, _RIGHT = 26, 20, 150, 24
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MARKS: dict[str, tuple[Shape, str]] = {
    "vote": ("diamond", "orange"),
    "axis": ("circle", "blue"),
    "comparison": ("square", "blue"),
    "rival": ("triangle", "orange"),
}


def method_figure(summary: Mapping[str, Any]) -> Figure | None:
    """Return the mean Dice of every method but the members; nothing where none has a score."""
    methods = {
        name: found
        for name, found in summary["methods"].items()
        if found["kind"] in _MARKS and found["metrics"]["dice"]["mean"] is not None
    }
    if not methods:
        return None
    across = Scale(low=0, high=1, start=_LEFT, end=WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(methods)
    parts: list[Markup] = []
    for value in _TICKS:
        parts.append(line((across(value), _TOP - 8), (across(value), bottom - 8), "grid"))
        parts.append(text(across(value), bottom + 8, f"{value:g}", anchor="middle"))
    for index, (name, found) in enumerate(methods.items()):
        parts += _row(name, found, across, _TOP + _ROW * index + 5)
    title = "Dice of every method"
    dice = methods[VOTE]["metrics"]["dice"] if VOTE in methods else None
    against = {test["second"]: test["p"] for test in summary["tests"] if test["first"] == VOTE}
    return Figure(
        title=title,
        chart=svg(
            f"{title}, with intervals" + (f": the vote {interval_text(dice)}" if dice else ""),
            *parts,
            height=bottom + 16,
        ),
        caption="Means over the cases with their intervals. Diamonds are votes of the ensemble, "
        "circles its axes, squares votes of other members, triangles rivals. Intervals that "
        "overlap do not say that two methods are alike: the paired comparisons do better.",
        table=Table(
            title=title,
            columns=("method", "Dice", "p against the vote"),
            rows=[
                (
                    name,
                    interval_text(found["metrics"]["dice"]),
                    MISSING if against.get(name) is None else p_text(against[name]),
                )
                for name, found in methods.items()
            ],
        ),
    )


def _row(name: str, found: Mapping[str, Any], across: Scale, y: float) -> list[Markup]:
    dice = found["metrics"]["dice"]
    shape, class_ = _MARKS[found["kind"]]
    parts = [text(_LEFT - 12, y + 4, name[:22], anchor="end")]
    if dice["low"] is not None:
        parts.append(line((across(dice["low"]), y), (across(dice["high"]), y), "interval"))
    parts.append(mark(shape, (across(dice["mean"]), y), class_, f"{name}: {interval_text(dice)}"))
    return parts
