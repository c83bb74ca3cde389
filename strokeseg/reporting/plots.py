"""The plots of a report: what `evaluate` measured, and how the search went.

Every plot of scores shows numbers that stand in a table too, for those who cannot see it. Marks
differ in shape as well as in colour.

Source:
    Bland and Altman, Statistical methods for assessing agreement between two methods of clinical
    measurement, Lancet 327 (1986), for the limits of agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.records.summary import VOTE, interval_text
from strokeseg.reporting.figures import (
    GROUND,
    HUES,
    INK,
    QUIET,
    A,
    B,
    C,
    empty_figure,
    inline_svg,
    page_style,
    tooltip,
)
from strokeseg.reporting.results import Results
from strokeseg.reporting.tables import MAIN_KINDS, parameter_text

_WIDTH, _HEIGHT, _SEARCH_HEIGHT = 460, 300, 270
_ROW, _COLUMN = 30, 84
_MARKERS = ("o", "s", "^", "D")
_FEWEST_FOR_LIMITS = 3
_LIMITS = 1.96
_SHOWN_IMPORTANCES = 8
_LOG_PARAMETERS = ("learning_rate", "weight_decay")
_HOLLOW = {"color": A, "markerfacecolor": GROUND, "markeredgewidth": 1.6}
_STATES: dict[str, tuple[str, dict[str, Any]]] = {
    "COMPLETE": ("complete", {"marker": "o", "color": A}),
    "PRUNED": ("stopped early", {"marker": "o", **_HOLLOW}),
    "RUNNING": ("running", {"marker": "^", **_HOLLOW}),
    "FAIL": ("failed", {"marker": "x", "color": B, "markeredgewidth": 1.8}),
}
_FURTHER: tuple[str, dict[str, Any]] = ("further run", {"marker": "D", "color": C})


def dice_by_method(results: Results) -> Markup:
    """Show the Dice of every case and the mean with its interval, a row a method."""
    methods = results.methods(*MAIN_KINDS)
    with page_style("dice-by-method", grid="x"):
        figure, axes = empty_figure(_WIDTH, 60 + _ROW * len(methods))
        axes.set(xlim=(0, 1), ylim=(len(methods) - 0.5, -0.5), xlabel="3D Dice")
        axes.set_yticks(range(len(methods)), list(methods), color=INK, fontweight="bold")
        axes.spines.bottom.set_visible(False)
        for place, (name, found) in enumerate(methods.items()):
            colour = A if name == VOTE else QUIET
            for row in results.rows(name):
                dice = row.values["dice"] or 0.0
                tip = tooltip(f"{row.case}: {dice:.3f}")
                _mark(axes, dice, place, tip, color=colour, alpha=0.35, markeredgewidth=0)
            statistic = found["metrics"]["dice"]
            tip = tooltip(interval_text(statistic))
            if statistic["low"] is not None:
                ends = (statistic["low"], statistic["high"])
                axes.plot(ends, (place, place), color=colour, linewidth=3, gid=tip)
            if statistic["mean"] is not None:
                _mark(axes, statistic["mean"], place, tip, color=colour, marker="D", markersize=8)
        title = "Dice of every method: its cases as points, the mean as a diamond on its interval"
        return inline_svg(figure, title)


def dice_by_volume(results: Results) -> Markup:
    """Show the Dice of every case by the volume of its lesion, of the vote and of baselines.

    A case without a lesion has no place on a logarithmic axis, and is left out.
    """
    methods = [VOTE, *results.methods("baseline")][: len(HUES)]
    volumes = [volume for row in results.rows(VOTE) if (volume := row.values["true_ml"])]
    with page_style("dice-by-volume"):
        figure, axes = empty_figure(_WIDTH, _HEIGHT)
        axes.set(xscale="log", xlabel="true volume, ml", ylim=(0, 1), title="Dice")
        axes.set_xlim(min([*volumes, 1.0]) / 1.3, max([*volumes, 10.0]) * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        styles = [
            {"color": hue, "marker": marker} for hue, marker in zip(HUES, _MARKERS, strict=True)
        ]
        for name, style in zip(methods, styles, strict=False):
            for row in results.rows(name):
                if volume := row.values["true_ml"]:
                    dice = row.values["dice"] or 0.0
                    tip = tooltip(f"{name}, case {row.case}: {volume:.1f} ml, Dice {dice:.3f}")
                    _mark(axes, volume, dice, tip, **style)
        if len(methods) > 1:
            _legend(figure, axes, list(zip(methods, styles, strict=False)))
        return inline_svg(figure, "Dice of every case by the volume of its true lesion")


def volume_agreement(results: Results) -> Markup:
    """Show predicted minus true volume by the mean of both, with the limits of agreement."""
    points = {
        row.case: ((true + predicted) / 2, predicted - true)
        for row in results.rows(VOTE)
        for true, predicted in [(row.values["true_ml"] or 0.0, row.values["predicted_ml"] or 0.0)]
    }
    differences = [difference for _, difference in points.values()]
    bias = fmean(differences)
    spread = _LIMITS * stdev(differences) if len(differences) >= _FEWEST_FOR_LIMITS else 0.0
    limits = [bias - spread, bias + spread] if spread > 0 else []
    reach = max(abs(value) for value in (*differences, *limits, 1.0)) * 1.1
    with page_style("volume-agreement"):
        figure, axes = empty_figure(_WIDTH, _HEIGHT)
        axes.set(
            xlim=(0, max([1.0, *(mean for mean, _ in points.values())]) * 1.05),
            ylim=(-reach, reach),
            xlabel="mean of true and predicted volume, ml",
            title="predicted - true, ml",
        )
        axes.axhline(0, color=QUIET, linewidth=1)
        lines = [(bias, A, "bias"), *((limit, B, "limit") for limit in limits)]
        for value, colour, words in lines:
            tip = tooltip(f"{words} {value:.2f} ml")
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.8, gid=tip)
            place = {"xy": (1, value), "xycoords": axes.get_yaxis_transform()}
            _beside(axes, f"{words} {value:.1f}", place)
        for case, (mean, difference) in points.items():
            tip = tooltip(f"case {case}: mean {mean:.1f} ml, difference {difference:+.1f} ml")
            _mark(axes, mean, difference, tip, color=A)
        return inline_svg(figure, "Agreement of predicted and true volumes (Bland and Altman)")


def disagreement_and_error(results: Results) -> Markup:
    """Show the error of the vote of every case by how much its axes disagree."""
    known = [
        (case["case"], disagreement, dice)
        for case in results.summary["disagreement"]["cases"]
        if (dice := case["dice"]) is not None
        and (disagreement := case["mean_disagreement"]) is not None
    ]
    most = max([disagreement for _, disagreement, _ in known] + [0.1])
    with page_style("disagreement-and-error"):
        figure, axes = empty_figure(_WIDTH, _HEIGHT)
        axes.set(xlim=(0, most * 1.1), ylim=(0, 1))
        axes.set(xlabel="mean disagreement of the axes", title="1 - Dice")
        for case, disagreement, dice in known:
            tip = tooltip(f"case {case}: disagreement {disagreement:.3f}, Dice {dice:.3f}")
            _mark(axes, disagreement, 1 - dice, tip, color=A)
        return inline_svg(figure, "Error of every case by the disagreement of the axes")


def history(axis: str, rows: Sequence[LeaderboardRow]) -> Markup:
    """Show the score of every trial in order, and the best so far; failed ones lie at 0."""
    trials = sorted((row for row in rows if row.confirms is None), key=lambda row: row.trial)
    further = [row for row in rows if row.confirms is not None and row.dice is not None]
    end = max((row.trial for row in rows), default=0) + 0.5
    scores = [row.dice or 0.0 for row in trials]
    with page_style(f"history-{axis}"):
        figure, axes = empty_figure(_WIDTH, _SEARCH_HEIGHT)
        best = max((row.dice or 0.0 for row in rows), default=0.0)
        axes.set(xlim=(-0.5, end), ylim=(0, max(0.1, best * 1.1)), xlabel="trial", title="Dice")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if trials:
            so_far = np.maximum.accumulate([*scores, 0.0])
            numbers = [*(row.trial for row in trials), end]
            axes.step(numbers, so_far, where="post", color=A, linewidth=1.8)
        for row in trials:
            words, style = _STATES[row.state]
            tip = f"trial {row.trial}, {words}: Dice {parameter_text(row.dice or 0.0)}"
            _mark(axes, row.trial, row.dice or 0.0, tooltip(tip), **style)
        for row in further:
            tip = f"trial {row.trial}, further run of {row.confirms}: Dice {row.dice or 0.0:.3f}"
            _mark(axes, row.trial, row.dice or 0.0, tooltip(tip), **_FURTHER[1])
        states = {row.state for row in trials}
        entries = [entry for state, entry in _STATES.items() if state in states]
        _legend(figure, axes, [*entries, *([_FURTHER] if further else [])])
        return inline_svg(figure, f"{axis}: score of every trial and the best so far")


def importances(axis: str, shares: Mapping[str, float]) -> Markup:
    """Show the share of each parameter in what sets the best trials apart."""
    shown = dict(list(shares.items())[:_SHOWN_IMPORTANCES])
    with page_style(f"importances-{axis}", grid=None):
        figure, axes = empty_figure(_WIDTH, 20 + 26 * len(shown))
        bars = axes.barh(list(shown), list(shown.values()), height=0.7, color=A)
        axes.bar_label(bars, fmt="{:.2f}", padding=5)
        for bar, (name, share) in zip(bars, shown.items(), strict=True):
            bar.set_gid(tooltip(f"{name}: {share:.3f}"))
        axes.invert_yaxis()
        axes.margins(0)
        axes.xaxis.set_visible(False)
        axes.spines.bottom.set_visible(False)
        return inline_svg(figure, f"{axis}: importance of the parameters")


def parallel_coordinates(axis: str, rows: Sequence[LeaderboardRow]) -> Markup | None:
    """Show every scored trial as a line through its parameters to its score, the best on top.

    Returns:
        The plot; None with fewer than two trials, or where no parameter differs.
    """
    scored = sorted(
        (row for row in rows if row.confirms is None and row.dice is not None),
        key=lambda row: row.dice or 0.0,
    )
    places = _places_of_parameters(scored)
    if len(scored) < 2 or not places:
        return None
    best = max(scored[-1].dice or 0.0, 0.1)
    last = len(places)
    with page_style(f"parallel-{axis}", grid=None):
        figure, axes = empty_figure(_COLUMN * last + 2 * _COLUMN, _SEARCH_HEIGHT)
        axes.set(xlim=(0, last), ylim=(0, best))
        axes.spines.bottom.set_visible(False)
        axes.vlines(range(last + 1), 0, best, color=QUIET, linewidth=1)
        # Neighbours' names are longer than the gap between them.
        titles = [f"{name}\n" if i % 2 else name for i, name in enumerate([*places, "Dice"])]
        axes.set_xticks(range(last + 1), titles, color=INK)
        axes.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
        axes.yaxis.tick_right()
        for rank, row in enumerate(scored):
            # Parameters lie between 0 and 1, as if that were from no Dice to the best.
            heights = [best * at[row.parameters[name]] for name, at in places.items()]
            style: dict[str, Any] = {"color": A, "alpha": 0.2 + 0.75 * rank / len(scored)}
            if row is scored[-1]:
                style = {"color": B, "linewidth": 3}
            tip = tooltip(f"trial {row.trial}: Dice {row.dice or 0.0:.3f}")
            axes.plot([*heights, row.dice or 0.0], **style, gid=tip)
        for at, values in enumerate(places.values()):
            for value, height in _labelled(values).items():
                words = parameter_text(value).removeprefix("tu-tf_")
                box = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
                _beside(axes, words, {"xy": (at, best * height)}, color=INK, bbox=box)
        return inline_svg(figure, f"{axis}: parameters and score of every trial")


def _mark(axes: Axes, x: float, y: float, tip: str, **style: Any) -> None:
    axes.plot(x, y, **{"marker": "o", "linestyle": "none", "gid": tip, **style})


def _beside(axes: Axes, words: str, place: Mapping[str, Any], **style: Any) -> None:
    """Write words to the right of a place."""
    axes.annotate(words, **place, xytext=(4, 0), textcoords="offset points", va="center", **style)


def _legend(figure: Figure, axes: Axes, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Write what marks mean above the axes, side by side."""
    handles = [axes.plot([], [], linestyle="none", **style)[0] for _, style in entries]
    labels = [words for words, _ in entries]
    figure.legend(handles, labels, loc="outside upper left", ncols=max(1, len(entries)))


def _places_of_parameters(rows: Sequence[LeaderboardRow]) -> dict[str, dict[object, float]]:
    """Where the values of each parameter that differs lie, from 0 to 1."""
    names = list(rows[0].parameters) if rows else []
    values = {name: {row.parameters[name] for row in rows} for name in names}
    return {name: _places(found, name) for name, found in values.items() if len(found) > 1}


def _places(values: set[Any], name: str) -> dict[object, float]:
    """Where each value of a parameter lies, from 0 to 1: numbers by size, others in order."""
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        ordered = sorted(values, key=str)
        return dict(zip(ordered, np.linspace(0, 1, len(ordered)).tolist(), strict=True))
    ordered = sorted(values)
    logarithmic = name in _LOG_PARAMETERS and ordered[0] > 0
    scaled = np.log(ordered) if logarithmic else np.asarray(ordered, dtype=float)
    shares = (scaled - scaled[0]) / (scaled[-1] - scaled[0])
    return dict(zip(ordered, shares.tolist(), strict=True))


def _labelled(places: Mapping[object, float]) -> dict[object, float]:
    """Which values to write: both ends, and all where there are few."""
    ordered = list(places.items())
    return dict(ordered if len(ordered) <= 3 else [ordered[0], ordered[-1]])
