"""Charts of the search: the history of an axis, what mattered, and which settings were good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from strokeseg.leaderboard import LeaderboardRow
from strokeseg.reporting.charts import (
    HEIGHT,
    WIDTH,
    Figure,
    Scale,
    Shape,
    frame,
    line,
    mark,
    polyline,
    svg,
    text,
)
from strokeseg.reporting.markup import Markup, join, tag
from strokeseg.reporting.search_tables import setting_text
from strokeseg.reporting.table import Table, number

_STATES: dict[str, tuple[Shape, str, str]] = {
    "COMPLETE": ("circle", "blue", "complete"),
    "PRUNED": ("cross", "grey", "stopped early"),
    "FURTHER": ("diamond", "orange", "further run of one of the best, with another seed"),
}
_BEST_SHARE = 0.25
_BAR_HEIGHT, _BAR_GAP, _BAR_LEFT = 18, 8, 190
_BROAD, _SIDE, _TOP, _BOTTOM = 1100, 64, 20, 40
_LONGEST_LABEL = 14
# Values of one parameter that lie a decade apart were searched by their logarithm.
_LOG_RATIO = 10


def history_figure(axis: str, rows: Sequence[LeaderboardRow]) -> Figure | None:
    """Return the scores of an axis's trials in order, or nothing where none has a score."""
    scored = _scored(rows)
    if not scored:
        return None
    last = max(row.trial for row in scored)
    top = min(1.0, math.ceil(10 * max(row.dice or 0.0 for row in scored) + 0.5) / 10)
    place = frame((-0.5, last + 0.5), (0, top), "trial", "Dice on validation", whole=True)
    best, steps = 0.0, []
    for row in scored:
        if row.confirms is None and (row.dice or 0.0) > best:
            steps.append((place.x(row.trial), place.y(best)))
            best = row.dice or 0.0
            steps.append((place.x(row.trial), place.y(best)))
    steps.append((place.x.end, place.y(best)))
    marks = [
        mark(
            *(_STATES[_kind(row)][:1]),
            (place.x(row.trial), place.y(row.dice or 0.0)),
            _STATES[_kind(row)][1],
            f"trial {row.trial}: Dice {number(row.dice)}, {row.state.lower()}",
        )
        for row in scored
    ]
    legend = [_STATES[kind] for kind in _STATES if any(_kind(row) == kind for row in scored)]
    title = f"Optimisation history, {axis}"
    return Figure(
        title=title,
        chart=svg(
            f"{title}: {len(scored)} trials, best Dice {best:.3f}",
            place.axes(),
            polyline(steps[1:], "best-so-far"),
            *marks,
            legend=legend,
        ),
        caption="Every trial's best mean 3D Dice over the validation patients; the line is the "
        "best so far.",
        table=Table(
            title=title,
            columns=("trial", "Dice", "state", "origin"),
            rows=[(str(r.trial), number(r.dice), r.state.lower(), r.origin) for r in scored],
        ),
    )


def importance_figure(axis: str, importances: Mapping[str, float]) -> Figure | None:
    """Return an axis's parameters by importance, or nothing where there are none."""
    if not importances:
        return None
    width = Scale(low=0, high=max(importances.values()), start=_BAR_LEFT, end=WIDTH - 56)
    bars: list[Markup] = []
    for index, (name, importance) in enumerate(importances.items()):
        top = index * (_BAR_HEIGHT + _BAR_GAP) + _BAR_GAP
        bars += [
            text(_BAR_LEFT - 8, top + 13, name, anchor="end"),
            tag(
                "rect",
                x=_BAR_LEFT,
                y=top,
                width=width(importance) - _BAR_LEFT,
                height=_BAR_HEIGHT,
                class_="blue",
            ),
            text(width(importance) + 6, top + 13, f"{importance:.2f}"),
        ]
    title = f"Importance of the parameters, {axis}"
    first = next(iter(importances))
    return Figure(
        title=title,
        chart=svg(
            f"{title}: {first} first with {importances[first]:.2f}",
            *bars,
            height=len(importances) * (_BAR_HEIGHT + _BAR_GAP) + _BAR_GAP,
        ),
        caption="A parameter's share of what sets the best quarter of the trials apart "
        "(PED-ANOVA).",
        table=Table(
            title=title,
            columns=("parameter", "importance"),
            rows=[(name, f"{importance:.4f}") for name, importance in importances.items()],
        ),
    )


def parallel_figure(axis: str, rows: Sequence[LeaderboardRow]) -> Figure | None:
    """Return every trial as a line through its settings; nothing where no setting differs."""
    scored = [row for row in _scored(rows) if row.confirms is None]
    names = [name for name in (scored[0].parameters if scored else ()) if _is_varied(name, scored)]
    if not names:
        return None
    columns = [_column([row.parameters[name] for row in scored]) for name in names]
    scores = [row.dice or 0.0 for row in scored]
    columns.append((Scale(low=min(scores), high=max(scores), start=_base(), end=_TOP), {}))
    across = Scale(low=0, high=len(names), start=_SIDE, end=_BROAD - _SIDE)
    good = sorted(scores, reverse=True)[max(1, round(_BEST_SHARE * len(scores))) - 1]
    lines = []
    for row, score in sorted(zip(scored, scores, strict=True), key=lambda pair: pair[1]):
        values = [*(row.parameters[name] for name in names), score]
        lines.append(
            polyline(
                [
                    (across(index), _height(column, value))
                    for index, (column, value) in enumerate(zip(columns, values, strict=True))
                ],
                "good" if score >= good else "other",
                f"trial {row.trial}: Dice {score:.3f}",
            )
        )
    posts = [
        _post(across(index), column, name, index)
        for index, (column, name) in enumerate(zip(columns, [*names, "Dice"], strict=True))
    ]
    title = f"Parallel coordinates, {axis}"
    return Figure(
        title=title,
        chart=svg(
            f"{title}: {len(scored)} trials over {len(names)} parameters",
            *lines,
            *posts,
            width=_BROAD,
        ),
        caption="A line is a trial; thick orange lines are the best quarter, thin ones the others.",
        table=Table(
            title=title,
            columns=("trial", *names, "Dice"),
            rows=[
                (
                    str(row.trial),
                    *(setting_text(row.parameters[name]) for name in names),
                    number(row.dice),
                )
                for row in scored
            ],
        ),
        broad=True,
    )


_Column = tuple[Scale, dict[str, float]]


def _scored(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    return sorted((row for row in rows if row.dice is not None), key=lambda row: row.trial)


def _kind(row: LeaderboardRow) -> str:
    return (
        "FURTHER"
        if row.confirms is not None
        else ("COMPLETE" if row.state == "COMPLETE" else "PRUNED")
    )


def _is_varied(name: str, rows: Sequence[LeaderboardRow]) -> bool:
    return len({setting_text(row.parameters[name]) for row in rows}) > 1


def _base() -> float:
    return HEIGHT - _BOTTOM


def _column(values: Sequence[object]) -> _Column:
    """The scale of one parameter; words, and numbers of few kinds, are spread evenly."""
    numbers = [float(value) for value in values if type(value) is float]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low >= _LOG_RATIO
        return Scale(low=low, high=high, start=_base(), end=_TOP, log=log), {}
    kinds = sorted(set(values), key=lambda value: (isinstance(value, str), str(value).zfill(9)))
    scale = Scale(low=-0.5, high=len(kinds) - 0.5, start=_base(), end=_TOP)
    return scale, {setting_text(kind): float(index) for index, kind in enumerate(kinds)}


def _height(column: _Column, value: object) -> float:
    scale, places = column
    if places:
        return scale(places[setting_text(value)])
    assert isinstance(value, float)
    return scale(value)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _post(x: float, column: _Column, name: str, index: int) -> Markup:
    scale, places = column
    labels = places or {f"{scale.low:.2g}": scale.low, f"{scale.high:.2g}": scale.high}
    return join(
        line((x, _TOP), (x, _base()), "post"),
        *(text(x + 5, scale(at) - 4, _short(label)) for label, at in labels.items()),
        # Neighbours' names stand on two lines, so that long ones do not run into each other.
        text(x, _base() + (16 if index % 2 == 0 else 32), name, anchor="middle"),
    )
