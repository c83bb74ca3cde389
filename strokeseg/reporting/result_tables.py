"""The tables of what was measured: methods, tests, sizes, lesions, disagreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strokeseg.imaging.metric_names import METRICS
from strokeseg.reporting.table import MISSING, Table, number
from strokeseg.summary import interval_text

_OVERLAP = ("dice", "sensitivity", "precision", "lesion_f1")
_DISTANCES = ("hd95_mm", "assd_mm", "volume_difference_ml", "lesion_count_difference")
_SMALLEST_P = 0.001


def result_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the means over the cases, and of what the tests say of them."""
    tables = [
        _overlaps(summary),
        _distances(summary),
        _lesions(summary),
        _sizes(summary),
        _tests(summary),
        _accuracy(summary),
        _members(summary),
    ]
    return [table for table in tables if table.rows]


def failed_table(summary: Mapping[str, Any]) -> Table:
    """Return the cases that could not be scored, and why."""
    return Table(
        title="Cases without a score",
        columns=("case", "reason"),
        rows=list(summary["failed"].items()),
    )


def disagreement_table(summary: Mapping[str, Any]) -> Table:
    """Return how much the axes disagree about each case, and how well the vote does there."""
    found = summary["disagreement"]
    return Table(
        title="Disagreement between the axes, by case",
        columns=("case", "mean disagreement", "Dice of the vote", "AUROC for errors"),
        rows=[
            (
                case["case"],
                number(case["mean_disagreement"], 4),
                number(case["dice"]),
                number(case.get("auroc")),
            )
            for case in found["cases"]
        ],
        note=disagreement_text(summary),
    )


def disagreement_text(summary: Mapping[str, Any]) -> str:
    """Say whether disagreement tells of errors."""
    ranks, voxels = summary["disagreement"]["spearman"], summary["disagreement"]["voxel"]
    said = []
    if ranks["rho"] is not None:
        p = "" if ranks["p"] is None else f", p = {p_text(ranks['p'])}"
        said.append(
            f"Rank correlation (Spearman) of a case's mean disagreement with 1 - Dice: "
            f"{ranks['rho']:.2f}{p}, {ranks['cases']} cases."
        )
    if voxels["mean_auroc"] is not None:
        said.append(
            f"A voxel's disagreement tells errors of the vote from the rest with a mean AUROC of "
            f"{voxels['mean_auroc']:.3f} (0.5 is chance) over {voxels['cases']} cases."
        )
    return " ".join(said) or "There are too few cases to say whether disagreement tells of errors."


def p_text(p: float) -> str:
    """Return a probability as text."""
    return f"below {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.3f}"


def _overlaps(summary: Mapping[str, Any]) -> Table:
    return Table(
        title="Overlap: mean and interval",
        columns=(
            *("method", "kind", "cases"),
            *(METRICS[name].heading for name in _OVERLAP),
            "median Dice (quartiles)",
        ),
        rows=[
            (
                *_who(method, found),
                *(_statistic(found, name, digits=3) for name in _OVERLAP),
                _quartiles(found["metrics"]["dice"]),
            )
            for method, found in _without_members(summary).items()
        ],
        note=_definitions(_OVERLAP),
    )


def _distances(summary: Mapping[str, Any]) -> Table:
    return Table(
        title="Distances and volumes: mean and interval",
        columns=("method", "kind", "cases", *(METRICS[name].heading for name in _DISTANCES)),
        rows=[
            (*_who(method, found), *(_statistic(found, name, digits=2) for name in _DISTANCES))
            for method, found in _without_members(summary).items()
        ],
        note=_definitions(_DISTANCES),
    )


def _members(summary: Mapping[str, Any]) -> Table:
    return Table(
        title="Each member by itself: mean and interval",
        columns=("member", "cases", *(METRICS[name].heading for name in _OVERLAP)),
        rows=[
            (
                method,
                str(found["cases"]),
                *(_statistic(found, name, digits=3) for name in _OVERLAP),
            )
            for method, found in summary["methods"].items()
            if found["kind"] == "member"
        ],
    )


def _without_members(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        method: found for method, found in summary["methods"].items() if found["kind"] != "member"
    }


def _who(method: str, found: Mapping[str, Any]) -> tuple[str, str, str]:
    return method, found["kind"], str(found["cases"])


def _definitions(metrics: tuple[str, ...]) -> str:
    return " ".join(
        f"{METRICS[name].title}: {METRICS[name].definition}{_better(METRICS[name].better)}."
        for name in metrics
    )


def _better(better: str | None) -> str:
    return {"high": " (higher is better)", "low": " (lower is better)"}.get(better or "", "")


def _statistic(found: Mapping[str, Any], name: str, digits: int) -> str:
    statistic = found["metrics"][name]
    text = interval_text(statistic, digits)
    known = statistic["cases"]
    # A metric that is not defined for a case has no part in the mean, and the reader must know.
    return text if known == found["cases"] else f"{text} [{known} cases]"


def _quartiles(statistic: Mapping[str, Any]) -> str:
    if statistic["median"] is None:
        return MISSING
    return f"{statistic['median']:.3f} ({statistic['q1']:.3f} to {statistic['q3']:.3f})"


def _lesions(summary: Mapping[str, Any]) -> Table:
    return Table(
        title="Lesions, all cases together",
        columns=("method", "true", "predicted", "missed", "false", "missed cases"),
        rows=[
            (
                method,
                *(str(found["lesions"][name]) for name in ("true", "predicted", "missed", "false")),
                str(found["missed_cases"]),
            )
            for method, found in _without_members(summary).items()
        ],
        note=(
            "A lesion is a 26-connected component. Missed: true lesions without any predicted "
            "voxel; false: predicted ones without any true voxel. Missed cases: exactly one of "
            "the two masks is empty."
        ),
    )


def _sizes(summary: Mapping[str, Any]) -> Table:
    shown = list(_without_members(summary))
    bins = summary["by_size"]
    return Table(
        title="Dice by the volume of the true lesion: mean and interval",
        columns=("method", *(f"{size_text(part)} (n = {part['cases']})" for part in bins)),
        rows=[
            (
                method,
                *(
                    interval_text(part["methods"][method]["dice"])
                    if method in part["methods"]
                    else MISSING
                    for part in bins
                ),
            )
            for method in shown
        ]
        if bins
        else [],
    )


def size_text(part: Mapping[str, Any]) -> str:
    """Return the ends of a bin of lesion volumes."""
    if part["high_ml"] is None:
        return f"{part['low_ml']:g} ml and more"
    return f"{part['low_ml']:g} to {part['high_ml']:g} ml"


def _tests(summary: Mapping[str, Any]) -> Table:
    tests = summary["tests"]
    return Table(
        title="Paired comparisons: difference of the mean Dice and interval",
        columns=("first - second", "cases", "difference", "p"),
        rows=[
            (
                f"{test['first']} - {test['second']}",
                str(test["cases"]),
                interval_text({**test, "mean": test["mean_difference"]}),
                MISSING if test["p"] is None else p_text(test["p"]),
            )
            for test in tests
        ],
        note=f"{tests[0]['test']}; not corrected for their number." if tests else "",
    )


def _accuracy(summary: Mapping[str, Any]) -> Table:
    return Table(
        title="Voxel accuracy, beside that of an empty mask",
        columns=("method", "voxel accuracy", "of an empty mask"),
        rows=[
            (
                method,
                number(found["metrics"]["accuracy"]["mean"], 4),
                number(found["metrics"]["accuracy_empty"]["mean"], 4),
            )
            for method, found in _without_members(summary).items()
        ],
        note="Most voxels are background: a mask that finds nothing is nearly as accurate.",
    )
