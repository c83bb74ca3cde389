"""What `evaluate` measured, as later commands read it.

A *subset* is `test`, the locked patients, or `validation`, those that chose the trials. A *score
row* holds the metrics of one mask of one case. A *method* made the mask: a *member* by its name,
an *axis*, a *vote* (`vote` is the ensemble as promoted), a *comparison* of other members, or a
*baseline*, a folder of masks that came from elsewhere. The *summary* says what the rows say
together; `evaluation.summarise` describes it. A summary is *current* when it was made of the
ensemble that is there now: the record of an ensemble holds its weights' hashes, so the record's
own hash tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError
from strokeseg.imaging import metric_names
from strokeseg.records.ensemble import RECORD_NAME
from strokeseg.records.experiment import Experiment
from strokeseg.records.phrases import count
from strokeseg.records.record import parse_values
from strokeseg.records.scores import ChoiceRecord, Kind, Summary
from strokeseg.records.splits import SUBSETS
from strokeseg.storage.files import converts_errors, file_sha256, read_csv, read_json, write_csv

VOTE = "vote"
METRICS = tuple(metric_names.METRICS)


# With n patients such an interval is too narrow by sqrt((n - 1) / n) at the least: 5 % for 10.
_ENOUGH_FOR_INTERVALS = 10

_WHO = ("case", "patient", "method", "kind")


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """The metrics of one mask.

    Attributes:
        case: Name of the case.
        patient: Whose case it is.
        method: What made the mask.
        kind: Of the method.
        values: By name of the metric; None where the metric is not defined.
    """

    case: str
    patient: str
    method: str
    kind: Kind
    values: Mapping[str, float | None]


def ensemble_hash(experiment: Experiment) -> str:
    """Return the hash that tells one ensemble of an experiment from another."""
    return file_sha256(experiment.ensemble_folder / RECORD_NAME)


def current_summary(experiment: Experiment, subsets: tuple[str, ...] = SUBSETS) -> Summary | None:
    """Return the first current summary among the subsets, or None when there is none."""
    for subset in subsets:
        path = experiment.summary_json(subset)
        if path.exists():
            summary = read_summary(path)
            if summary["ensemble_sha256"] == ensemble_hash(experiment):
                return summary
    return None


def read_summary(path: Path) -> Summary:
    """Return what a `summary.json` says.

    Raises:
        UserError: When it is missing or damaged.
    """
    remedy = "run strokeseg evaluate again"
    summary: Summary = parse_values(Summary, read_json(path), str(path), remedy)
    if VOTE not in summary["methods"]:
        raise UserError(f"{path}: lacks the method {VOTE}; {remedy}")
    return summary


def read_choice(experiment: Experiment) -> dict[str, Any] | None:
    """Return what `choice.json` says, or None when there is none.

    Raises:
        UserError: When it is damaged.
    """
    path = experiment.choice_json
    if not path.exists():
        return None
    choice: dict[str, Any] = parse_values(
        ChoiceRecord, read_json(path), str(path), "run strokeseg promote again"
    )
    return choice


def write_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write score rows as CSV; the cell of a metric that is not defined is empty."""
    write_csv(
        path,
        [*_WHO, *METRICS],
        [{**{name: getattr(row, name) for name in _WHO}, **row.values} for row in rows],
    )


def read_scores(path: Path) -> list[ScoreRow]:
    """Read what `write_scores` wrote.

    Raises:
        UserError: When the file is missing or holds other columns or values.
    """
    with converts_errors(path, "table of scores", "evaluate again"):
        return [
            ScoreRow(
                case=cells["case"],
                patient=cells["patient"],
                method=cells["method"],
                kind=cells["kind"],  # type: ignore[arg-type]
                values={metric: _number(cells[metric]) for metric in METRICS},
            )
            for cells in read_csv(path)
        ]


def _number(cell: str) -> float | None:
    number = float(cell) if cell else None
    if number is not None and not math.isfinite(number):
        raise ValueError(f"scores must be finite, got {cell!r}")
    return number


def few_patients_notes(patients: int) -> list[str]:
    """Say what intervals over so few patients are worth; None where there are enough.

    Source: Hesterberg, What teachers should know about the bootstrap, The American Statistician
    69 (2015).
    """
    if patients >= _ENOUGH_FOR_INTERVALS:
        return []
    return [
        f"Bootstrap intervals over so few as {count(patients, 'patient')} are too narrow; where "
        "a p value says otherwise, believe the p value, which is exact."
    ]


def interval_text(statistic: Mapping[str, Any], digits: int = 3) -> str:
    """Return a mean and its interval as text: `0.612 (0.520 to 0.701)`.

    Args:
        statistic: With `mean`, `low` and `high`; a mean of no case at all is None, and so are
            both ends of an interval from fewer than two patients.
        digits: After the decimal point.
    """
    mean, low, high = (statistic[name] for name in ("mean", "low", "high"))
    if mean is None:
        return "-"
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
