"""The pages that an experiment leaves, in Markdown: its report and its model card.

Both say what was measured and on what, and nothing that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strokeseg.experiment import Experiment
from strokeseg.leaderboard import LeaderboardRow, best_by_start
from strokeseg.learning.ensemble_record import EnsembleRecord
from strokeseg.preparation.record import Preparation
from strokeseg.summary import interval_text

METRIC_TITLES = {
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "volume_difference_ml": "volume difference, ml",
}
_HEAD = 5
_PARAMETERS = ("encoder", "encoder_depth", "pretrained", "learning_rate")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left, the others right."""
    rule = [":--", *["--:"] * (len(columns) - 1)]
    lines = [columns, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report_page(
    experiment: Experiment,
    preparation: Preparation,
    boards: Mapping[str, Sequence[LeaderboardRow]],
    ensemble: EnsembleRecord,
    summary: Mapping[str, Any],
    command: str,
) -> str:
    """Return the report of a finished experiment.

    Args:
        experiment: Which.
        preparation: Its data.
        boards: The leaderboard's rows by axis, best first.
        ensemble: What was promoted.
        summary: What `evaluate` wrote.
        command: The command that makes these results again.
    """
    search = experiment.config.search
    parts = [
        f"# {experiment.name}: what was searched and scored",
        f"Made by `{command}`, strokeseg {summary['code_version']}.",
        _side_title(summary),
        _test_text(summary),
        results_table(summary),
        _failed_text(summary),
        _comparison_text(boards, summary),
        "## The search",
        f"Trials were scored by mean 3D Dice over the patients of fold "
        f"{experiment.config.splits.validation_fold}; a full trial has {_epochs(boards)} epochs "
        f"of {search.slices_per_epoch or 'all'} slices. The best {_HEAD} of each axis:",
    ]
    for axis, rows in boards.items():
        parts += [f"### {axis}", _counts(rows), _board_table(rows)]
    parts += ["## The protocol", _protocol(preparation, ensemble, summary)]
    return "\n\n".join(part for part in parts if part) + "\n"


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


def _failed_text(summary: Mapping[str, Any]) -> str:
    return "\n".join(f"- failed: {case}: {why}" for case, why in summary["failed"].items())


def _comparison_text(
    boards: Mapping[str, Sequence[LeaderboardRow]], summary: Mapping[str, Any]
) -> str:
    """Say which trials stand behind the comparison, since their budgets may differ."""
    lines = []
    for name, pretrained in (("pretrained", True), ("scratch", False)):
        if f"vote_{name}" not in summary["methods"]:
            continue
        best = {axis: best_by_start(rows, pretrained=pretrained) for axis, rows in boards.items()}
        trials = [
            f"{axis} trial {row.trial} ({row.state.lower()}, {row.epochs_run} epochs)"
            for axis, row in best.items()
            if row is not None
        ]
        lines.append(f"- `vote_{name}`: {', '.join(trials)}")
    return "\n".join(lines)


def _epochs(boards: Mapping[str, Sequence[LeaderboardRow]]) -> int:
    complete = (row for rows in boards.values() for row in rows if row.state == "COMPLETE")
    return max((row.epochs_run for row in complete), default=0)


def _counts(rows: Sequence[LeaderboardRow]) -> str:
    own = [row for row in rows if row.confirms is None]
    states = {
        state: sum(row.state == state for row in own) for state in ("COMPLETE", "PRUNED", "FAIL")
    }
    further = sum(row.confirms is not None for row in rows)
    return (
        f"{len(own)} trials: {states['COMPLETE']} complete, {states['PRUNED']} stopped early, "
        f"{states['FAIL']} failed; {further} further runs of the best; "
        f"{sum(row.epochs_run for row in rows)} epochs, "
        f"{sum(row.seconds for row in rows) / 60:.1f} trial-minutes, "
        f"{sum(row.device_hours for row in rows):.2f} device-hours."
    )


def _board_table(rows: Sequence[LeaderboardRow]) -> str:
    return markdown_table(
        ("trial", "state", "Dice", "further runs", "best epoch", "epochs", *_PARAMETERS),
        [
            (
                str(row.trial),
                row.state,
                "-" if row.dice is None else f"{row.dice:.3f}",
                further_runs(row),
                str(row.best_epoch or "-"),
                str(row.epochs_run),
                *(_cell(row.parameters[name]) for name in _PARAMETERS),
            )
            for row in [row for row in rows if row.confirms is None][:_HEAD]
        ],
    )


def further_runs(row: LeaderboardRow) -> str:
    """Return the mean, spread and number of a trial's further runs, or a dash."""
    if row.mean_dice is None:
        return "-"
    spread = "" if row.seed_spread is None else f" ± {row.seed_spread:.3f}"
    return f"{row.mean_dice:.3f}{spread} ({row.runs})"


def _cell(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _protocol(
    preparation: Preparation, ensemble: EnsembleRecord, summary: Mapping[str, Any]
) -> str:
    sides = sorted({case.fold or "" for case in preparation.cases.values()})
    patients = {
        side: len({case.patient for case in preparation.cases.values() if case.fold == side})
        for side in sides
    }
    spacing = " x ".join(f"{side:g}" for side in preparation.spacing_mm)
    return "\n".join(
        [
            f"- patients: {', '.join(f'{count} in {side}' for side, count in patients.items())} "
            "(folds by number; `test` is the locked set)",
            f"- sequences: {', '.join(ensemble.sequences)}; voxels of {spacing} mm",
            f"- data `{preparation.fingerprint[:16]}`, splits `{preparation.splits_hash[:16]}`, "
            f"ensemble `{summary['ensemble_sha256'][:16]}`",
        ]
    )
