"""The plots of what `evaluate` measured.

Every plot shows numbers that stand in a table too, for those who cannot see it.

Source:
    Bland and Altman, Statistical methods for assessing agreement between two methods of clinical
    measurement, Lancet 327 (1986), for the limits of agreement.
"""

from __future__ import annotations

from statistics import fmean, stdev

from strokeseg.records.summary import VOTE, ScoreRow, interval_text
from strokeseg.reporting.markup import Html
from strokeseg.reporting.results import Results
from strokeseg.reporting.svg import (
    HUES,
    SHAPES,
    Scale,
    figure,
    frame,
    legend,
    line,
    point,
    text,
)
from strokeseg.reporting.tables import MAIN_KINDS

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 44, 46
_FEWEST_FOR_LIMITS = 3
_LIMITS = 1.96
_ROW = 30


def dice_by_method(results: Results) -> Html:
    """Show the Dice of every case and the mean with its interval, a row a method."""
    methods = results.methods(*MAIN_KINDS)
    longest = max(len(name) for name in methods)
    height = _TOP + _ROW * len(methods)
    x = Scale(low=0, high=1, start=16 + 8.0 * longest, end=_WIDTH - _RIGHT)
    marks = [
        line([(x.place(tick), 20), (x.place(tick), height - 14)], "grid") for tick in x.ticks()
    ]
    marks += [text(f"{tick:.1f}", x.place(tick), height + 4, anchor="middle") for tick in x.ticks()]
    marks.append(text("3D Dice", (x.start + x.end) / 2, 12, anchor="middle", kind="title"))
    for index, (name, found) in enumerate(methods.items()):
        middle = 36 + _ROW * index
        hue = HUES[0] if name == VOTE else "hue-quiet"
        marks.append(text(name, x.start - 10, middle + 4, anchor="end", kind="label strong"))
        for row in results.rows(name):
            dice = row.values["dice"] or 0.0
            marks.append(
                point(x.place(dice), middle, "circle", f"{hue} faint", f"{row.case}: {dice:.3f}")
            )
        statistic = found["metrics"]["dice"]
        if statistic["low"] is not None:
            ends = [(x.place(statistic[end]), middle) for end in ("low", "high")]
            marks.append(line(ends, f"{hue} interval", interval_text(statistic)))
        if statistic["mean"] is not None:
            mean = x.place(statistic["mean"])
            marks.append(point(mean, middle, "diamond", hue, interval_text(statistic)))
    return figure(
        _WIDTH,
        height + 10,
        "Dice of every method: its cases as points, the mean as a diamond on its interval",
        marks,
    )


def dice_by_volume(results: Results) -> Html:
    """Show the Dice of every case by the volume of its lesion, of the vote and of baselines.

    A case without a lesion has no place on a logarithmic axis, and is left out.
    """
    methods = [VOTE, *results.methods("baseline")][: len(HUES)]
    rows = {name: [row for row in results.rows(name) if row.values["true_ml"]] for name in methods}
    volumes = [volume for row in rows[VOTE] if (volume := row.values["true_ml"])]
    x = Scale(
        low=min([*volumes, 1.0]) / 1.3,
        high=max([*volumes, 10.0]) * 1.3,
        start=_LEFT,
        end=_WIDTH - _RIGHT,
        logarithmic=True,
    )
    y = Scale(low=0, high=1, start=_HEIGHT - _BOTTOM, end=_TOP)
    marks = frame(x, y, "true volume, ml", "Dice")
    for name, hue, shape in zip(methods, HUES, SHAPES, strict=False):
        marks += [
            point(
                x.place(row.values["true_ml"] or 0.0),
                y.place(row.values["dice"] or 0.0),
                shape,
                hue,
                f"{name}, case {row.case}: {row.values['true_ml']:.1f} ml, "
                f"Dice {row.values['dice']:.3f}",
            )
            for row in rows[name]
        ]
    if len(methods) > 1:
        entries = zip(SHAPES, HUES, methods, strict=False)
        marks += legend([(shape, hue, name) for shape, hue, name in entries], _LEFT + 60, 14)
    return figure(_WIDTH, _HEIGHT, "Dice of every case by the volume of its true lesion", marks)


def volume_agreement(results: Results) -> Html:
    """Show predicted minus true volume by the mean of both, with the limits of agreement."""
    rows = results.rows(VOTE)
    means, differences = [], []
    for row in rows:
        true, predicted = _volumes(row)
        means.append((true + predicted) / 2)
        differences.append(predicted - true)
    bias = fmean(differences)
    limits: list[float] = []
    if len(differences) >= _FEWEST_FOR_LIMITS:
        spread = _LIMITS * stdev(differences)
        limits = [bias - spread, bias + spread] if spread > 0 else []
    reach = max(abs(value) for value in (*differences, *limits, 1.0)) * 1.1
    x = Scale(low=0, high=max([*means, 1.0]) * 1.05, start=_LEFT + 10, end=_WIDTH - 66)
    y = Scale(low=-reach, high=reach, start=_HEIGHT - _BOTTOM, end=_TOP)
    marks = frame(x, y, "mean of true and predicted volume, ml", "predicted - true, ml")
    for value, kind, words in (
        (0.0, "axis", ""),
        (bias, "hue-a dashed", "bias"),
        *((limit, "hue-b dashed", "limit") for limit in limits),
    ):
        at = y.place(value)
        marks.append(line([(x.start, at), (x.end, at)], kind, f"{words} {value:.2f} ml".strip()))
        if words:
            marks.append(text(f"{words} {value:.1f}", x.end + 3, at + 4))
    for row, mean, difference in zip(rows, means, differences, strict=True):
        tip = f"case {row.case}: mean {mean:.1f} ml, difference {difference:+.1f} ml"
        marks.append(point(x.place(mean), y.place(difference), "circle", "hue-a", tip))
    return figure(
        _WIDTH, _HEIGHT, "Agreement of predicted and true volumes (Bland and Altman)", marks
    )


def disagreement_and_error(results: Results) -> Html:
    """Show the error of the vote of every case by how much its axes disagree."""
    known = [
        (case["case"], disagreement, dice)
        for case in results.summary["disagreement"]["cases"]
        if (dice := case["dice"]) is not None
        and (disagreement := case["mean_disagreement"]) is not None
    ]
    most = max([disagreement for _, disagreement, _ in known] + [0.1])
    x = Scale(low=0, high=most * 1.1, start=_LEFT, end=_WIDTH - _RIGHT)
    y = Scale(low=0, high=1, start=_HEIGHT - _BOTTOM, end=_TOP)
    marks = frame(x, y, "mean disagreement of the axes", "1 - Dice")
    marks += [
        point(
            x.place(disagreement),
            y.place(1 - dice),
            "circle",
            "hue-a",
            f"case {case}: disagreement {disagreement:.3f}, Dice {dice:.3f}",
        )
        for case, disagreement, dice in known
    ]
    return figure(_WIDTH, _HEIGHT, "Error of every case by the disagreement of the axes", marks)


def _volumes(row: ScoreRow) -> tuple[float, float]:
    return row.values["true_ml"] or 0.0, row.values["predicted_ml"] or 0.0
