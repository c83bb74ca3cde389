"""Charts of the scored cases: Dice by size, agreement of volumes, disagreement beside error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from strokeseg.reporting.charts import WIDTH, Figure, Frame, Scale, frame, line, mark, svg, text
from strokeseg.reporting.result_tables import disagreement_table, disagreement_text
from strokeseg.reporting.table import Table, number
from strokeseg.summary import ScoreRow

# Between these lie 95 % of the differences, were they normally distributed.
_LIMIT_DEVIATIONS = 1.96
_FEWEST_FOR_LIMITS = 3
_SMALLEST_ML = 0.1


def size_figure(scores: Sequence[ScoreRow]) -> Figure | None:
    """Return the Dice of the vote by the volume of the true lesion; nothing without a lesion.

    Args:
        scores: A row a case.
    """
    rows = [row for row in scores if row.values["dice"] is not None and row.values["true_ml"]]
    if not rows:
        return None
    volumes = [max(_SMALLEST_ML, row.values["true_ml"] or 0.0) for row in rows]
    low, high = (
        10 ** math.floor(math.log10(min(volumes))),
        10 ** math.ceil(math.log10(max(volumes)) + 1e-9),
    )
    plain = frame((0, 1), (0, 1), "volume of the true lesion, ml (logarithmic)", "Dice of the vote")
    place = Frame(
        x=Scale(low=low, high=high, start=plain.x.start, end=plain.x.end, log=True),
        y=plain.y,
        x_title=plain.x_title,
        y_title=plain.y_title,
    )
    marks = [
        mark(
            "circle",
            (place.x(volume), place.y(row.values["dice"] or 0.0)),
            "blue",
            f"case {row.case}: {volume:.1f} ml, Dice {number(row.values['dice'])}",
        )
        for row, volume in zip(rows, volumes, strict=True)
    ]
    title = "Dice by lesion size"
    return Figure(
        title=title,
        chart=svg(f"{title}: {len(rows)} cases", place.axes(), *marks),
        caption="Each mark is a case. Small lesions lose much Dice by few voxels.",
        table=Table(
            title=title,
            columns=("case", "true volume, ml", "Dice"),
            rows=[
                (row.case, number(row.values["true_ml"], 2), number(row.values["dice"]))
                for row in sorted(rows, key=lambda row: row.values["true_ml"] or 0.0)
            ],
        ),
    )


def agreement_figure(scores: Sequence[ScoreRow]) -> Figure | None:
    """Return predicted and true volumes as Bland and Altman plot them; nothing without cases.

    Args:
        scores: A row a case.

    Source: Bland and Altman, Statistical methods for assessing agreement between two methods of
    clinical measurement, Lancet 1986.
    """
    pairs = [
        (row.case, row.values["true_ml"], row.values["predicted_ml"])
        for row in scores
        if row.values["true_ml"] is not None and row.values["predicted_ml"] is not None
    ]
    known = [
        (case, true, found) for case, true, found in pairs if true is not None and found is not None
    ]
    if not known:
        return None
    means = [(true + found) / 2 for _, true, found in known]
    differences = [found - true for _, true, found in known]
    bias = fmean(differences)
    levels = {"mean difference": bias}
    if len(known) >= _FEWEST_FOR_LIMITS:
        spread = _LIMIT_DEVIATIONS * stdev(differences)
        levels |= {"upper limit": bias + spread, "lower limit": bias - spread}
    reach = 1.15 * max(*(abs(value) for value in (*differences, *levels.values())), 0.5)
    place = frame(
        (0, 1.05 * max(*means, 1.0)),
        (-reach, reach),
        "mean of true and predicted volume, ml",
        "predicted - true, ml",
    )
    lines = []
    for name, value in levels.items():
        at = place.y(value)
        lines.append(line((place.x.start, at), (place.x.end, at), f"level {name.split()[0]}"))
        lines.append(text(WIDTH - 20, at - 4, f"{name} {value:+.1f}", anchor="end"))
    marks = [
        mark(
            "circle",
            (place.x(mean), place.y(difference)),
            "blue",
            f"case {case}: true {true:.1f} ml, predicted {found:.1f} ml",
        )
        for (case, true, found), mean, difference in zip(known, means, differences, strict=True)
    ]
    title = "Agreement of volumes (Bland-Altman)"
    return Figure(
        title=title,
        chart=svg(
            f"{title}: mean difference {bias:+.1f} ml over {len(known)} cases",
            place.axes(),
            *lines,
            *marks,
        ),
        caption="Above 0 the vote predicts too much, below it too little. The limits hold 95 % of "
        "the differences if these are normally distributed."
        if len(levels) > 1
        else "Above 0 the vote predicts too much, below it too little.",
        table=Table(
            title=title,
            columns=("case", "true volume, ml", "predicted volume, ml", "difference, ml"),
            rows=[
                (case, f"{true:.2f}", f"{found:.2f}", f"{found - true:+.2f}")
                for case, true, found in known
            ],
        ),
    )


def disagreement_figure(summary: Mapping[str, Any]) -> Figure | None:
    """Return the axes' mean disagreement beside the error of the vote; nothing without cases."""
    cases = [case for case in summary["disagreement"]["cases"] if case["dice"] is not None]
    if not cases:
        return None
    most = max(case["mean_disagreement"] for case in cases) or 1.0
    place = frame((0, 1.1 * most), (0, 1), "mean disagreement of the axes", "1 - Dice of the vote")
    marks = [
        mark(
            "triangle",
            (place.x(case["mean_disagreement"]), place.y(1 - case["dice"])),
            "orange",
            f"case {case['case']}: disagreement {case['mean_disagreement']:.4f}, "
            f"Dice {case['dice']:.3f}",
        )
        for case in cases
    ]
    title = "Disagreement and error"
    return Figure(
        title=title,
        chart=svg(f"{title}: {len(cases)} cases", place.axes(), *marks),
        caption=disagreement_text(summary),
        # The caption says what the table's note would.
        table=replace(disagreement_table(summary), note=""),
    )
