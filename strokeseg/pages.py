"""The model card of an experiment, in Markdown.

It says what was measured and on what, and nothing that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strokeseg.learning.ensemble_record import EnsembleRecord
from strokeseg.preparation.record import Preparation
from strokeseg.summary import interval_text

METRIC_TITLES = {
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "volume_difference_ml": "volume difference, ml",
}


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left, the others right."""
    rule = [":--", *["--:"] * (len(columns) - 1)]
    lines = [columns, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def model_card(
    ensemble: EnsembleRecord, preparation: Preparation, summary: Mapping[str, Any] | None
) -> str:
    """Return the card that travels with a bundle."""
    trained = [case for case in preparation.cases.values() if (case.fold or "").isdecimal()]
    spacing = " x ".join(f"{side:g}" for side in ensemble.spacing_mm or ())
    parts = [
        f"# {ensemble.name}: ischemic stroke lesion segmentation",
        "For research only; this is no medical device.",
        f"Input: {', '.join(ensemble.sequences)}, skull-stripped and on one grid; cases of "
        f"another voxel size than {spacing} mm are resampled to it. Output: a lesion mask on "
        "the input's own grid, by majority vote of "
        f"{', '.join(f'{len(names)} {axis}' for axis, names in ensemble.members.items())} "
        f"2D networks (threshold {ensemble.rule.threshold:g}).",
        "    python -m strokeseg.predict --bundle bundle.zip --input CASES --output MASKS",
        f"Trained and chosen on {len(trained)} cases "
        f"(data {ensemble.preparation_hash[:12]}, strokeseg {ensemble.code_version}).",
    ]
    if summary is None:
        parts.append("Its quality was not measured before it was exported.")
    else:
        parts += [_side_title(summary), _test_text(summary), results_table(summary)]
    parts += [
        "## Not measured",
        "How it does on scanners, hospitals, stroke stages or diseases other than those of its "
        "training data.",
    ]
    return "\n\n".join(parts) + "\n"


def results_table(summary: Mapping[str, Any]) -> str:
    """Return the means over the test cases, a row a method."""
    return markdown_table(
        ("method", *METRIC_TITLES.values(), "median Dice"),
        [
            (
                method,
                *(interval_text(found["metrics"][metric]) for metric in METRIC_TITLES),
                _number(found["metrics"]["dice"]["median"]),
            )
            for method, found in summary["methods"].items()
        ],
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _side_title(summary: Mapping[str, Any]) -> str:
    return "## Unseen test cases" if summary["on"] == "test" else "## Validation cases: no test"


def _test_text(summary: Mapping[str, Any]) -> str:
    scored = summary["methods"]["vote"]["cases"]
    kind = (
        "that no training and no choice has seen"
        if summary["on"] == "test"
        else "by which the trials were chosen: the scores flatter the ensemble"
    )
    return (
        f"Means over {scored} cases {kind}, in 3D on each case's own grid; the volume "
        "difference is absolute. So few cases say little about others."
    )
