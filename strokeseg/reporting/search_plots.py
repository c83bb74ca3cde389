"""The plots of a search: its history, what mattered in it, and where its trials lie.

They are drawn from the leaderboards, which know the best score of every trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.reporting.markup import Html
from strokeseg.reporting.svg import HUES, Scale, bar, figure, frame, legend, line, point, text
from strokeseg.reporting.tables import parameter_text

_WIDTH, _HEIGHT = 460, 280
_GAP, _LEFT, _RIGHT, _TOP = 84, 70, 70, 52
_SHOWN_IMPORTANCES = 8
# Classes of the page's style, from the palest to the strongest.
_SHADES = 5
_LOG_PARAMETERS = ("learning_rate", "weight_decay")
_STATES = {
    "COMPLETE": ("circle", HUES[0], "complete"),
    "PRUNED": ("circle", "hollow", "stopped early"),
    "RUNNING": ("triangle", "hollow", "running"),
    "FAIL": ("cross", HUES[1], "failed"),
}


def history(axis: str, rows: Sequence[LeaderboardRow]) -> Html:
    """Show the score of every trial in order, and the best so far; failed ones lie at 0."""
    trials = sorted((row for row in rows if row.confirms is None), key=lambda row: row.trial)
    further = [row for row in rows if row.confirms is not None and row.dice is not None]
    last = max((row.trial for row in rows), default=0)
    best = max((row.dice or 0.0 for row in rows), default=0.0)
    x = Scale(low=-0.5, high=last + 0.5, start=46, end=_WIDTH - 14)
    y = Scale(low=0, high=max(0.1, best * 1.1), start=_HEIGHT - 46, end=48)
    marks = frame(x, y, "trial", "Dice")
    so_far, steps = 0.0, []
    for row in trials:
        after = max(so_far, row.dice or 0.0)
        steps += [(x.place(row.trial), y.place(value)) for value in (so_far, after)]
        so_far = after
    steps.append((x.end, y.place(so_far)))
    marks.append(line(steps[1:], "hue-a"))
    for row in trials:
        shape, kind, words = _STATES[row.state]
        tip = f"trial {row.trial}, {words}: Dice {parameter_text(row.dice or 0.0)}"
        marks.append(point(x.place(row.trial), y.place(row.dice or 0.0), shape, kind, tip))
    for row in further:
        tip = f"trial {row.trial}, further run of {row.confirms}: Dice {row.dice or 0.0:.3f}"
        marks.append(point(x.place(row.trial), y.place(row.dice or 0.0), "diamond", HUES[2], tip))
    entries = [_STATES[state] for state in _STATES if any(row.state == state for row in trials)]
    if further:
        entries.append(("diamond", HUES[2], "further run"))
    marks += legend(entries, 40, 14)
    return figure(_WIDTH, _HEIGHT, f"{axis}: score of every trial and the best so far", marks)


def importances(axis: str, shares: Mapping[str, float]) -> Html:
    """Show the share of each parameter in what sets the best trials apart."""
    shown = list(shares.items())[:_SHOWN_IMPORTANCES]
    start = 150.0
    x = Scale(low=0, high=max(shares.values()), start=start, end=_WIDTH - 60)
    marks = []
    for index, (name, share) in enumerate(shown):
        top = 10 + 26 * index
        marks.append(text(name, start - 8, top + 14, anchor="end"))
        marks.append(bar(start, top, x.place(share) - start, 18, HUES[0], f"{name}: {share:.3f}"))
        marks.append(text(f"{share:.2f}", x.place(share) + 6, top + 14))
    return figure(_WIDTH, 20 + 26 * len(shown), f"{axis}: importance of the parameters", marks)


def parallel_coordinates(axis: str, rows: Sequence[LeaderboardRow]) -> Html | None:
    """Show every scored trial as a line through its parameters to its score, the best on top.

    Returns:
        The plot; None with fewer than two trials, or none of whose parameters differ.
    """
    scored = sorted(
        (row for row in rows if row.confirms is None and row.dice is not None),
        key=lambda row: row.dice or 0.0,
    )
    names = [name for name in _names(scored) if len({row.parameters[name] for row in scored}) > 1]
    if len(scored) < 2 or not names:
        return None
    places = {name: _places([row.parameters[name] for row in scored], name) for name in names}
    best = max(scored[-1].dice or 0.0, 0.1)
    scale = Scale(low=0, high=best, start=_HEIGHT - 24, end=_TOP)
    across = [float(_LEFT + _GAP * index) for index in range(len(names) + 1)]
    marks = []
    for rank, row in enumerate(scored):
        # Parameters lie between 0 and 1, as if that were from no Dice to the best.
        heights = [scale.place(best * places[name][row.parameters[name]]) for name in names]
        path = [*heights, scale.place(row.dice or 0.0)]
        kind = "best" if row is scored[-1] else f"share-{_SHADES * rank // len(scored)}"
        tip = f"trial {row.trial}: Dice {row.dice or 0.0:.3f}"
        marks.append(line(list(zip(across, path, strict=True)), kind, tip))
    for index, title in enumerate([*names, "Dice"]):
        at = across[index]
        marks.append(line([(at, _TOP), (at, scale.start)], "axis"))
        # Neighbours' names are longer than the gap between them.
        marks.append(text(title, at, 14 + 16 * (index % 2), anchor="middle", kind="title"))
    for name, at in zip(names, across, strict=False):
        for value, height in _labelled(places[name]).items():
            words = parameter_text(value).removeprefix("tu-tf_")
            marks.append(text(words, at + 4, scale.place(best * height) + 4, kind="halo"))
    marks += [text(f"{tick:.2g}", across[-1] + 6, scale.place(tick) + 4) for tick in scale.ticks()]
    width = int(across[-1]) + _RIGHT
    return figure(width, _HEIGHT, f"{axis}: parameters and score of every trial", marks)


def _names(rows: Sequence[LeaderboardRow]) -> list[str]:
    return list(rows[0].parameters) if rows else []


def _places(values: Sequence[object], name: str) -> dict[object, float]:
    """Where each value of a parameter lies, from 0 to 1: numbers by size, others in order."""
    distinct = set(values)
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in distinct):
        numbers = sorted(float(str(value)) for value in distinct)
        scale = Scale(
            low=numbers[0],
            high=numbers[-1],
            start=0,
            end=1,
            logarithmic=name in _LOG_PARAMETERS and numbers[0] > 0,
        )
        return {value: scale.place(float(str(value))) for value in distinct}
    ordered = sorted(distinct, key=str)
    return {value: index / (len(ordered) - 1) for index, value in enumerate(ordered)}


def _labelled(places: Mapping[object, float]) -> dict[object, float]:
    """Which values to write: both ends, and all where there are few."""
    ordered = dict(sorted(places.items(), key=lambda place: place[1]))
    if len(ordered) <= 3:
        return ordered
    ends = (next(iter(ordered)), next(reversed(ordered)))
    return {value: ordered[value] for value in ends}
