"""The tables of a report, as text in cells, for the page and its twin in Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strokeseg.imaging.metric_names import METRICS, OF_CASES, OF_METHODS
from strokeseg.records.gains import further_runs
from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.records.phrases import STEP_COLUMNS, step_rows
from strokeseg.records.summary import VOTE, interval_text
from strokeseg.reporting.results import Results

MAIN_KINDS = ("vote", "axis", "comparison", "baseline")
BOARD_ROWS = 5

# Dice has columns of its own.
_METHOD_METRICS = (
    *(metric for metric in OF_METHODS if metric != "dice"),
    "lesion_count_difference",
)
_PARAMETERS = ("encoder", "encoder_depth", "pretrained", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text.

    Attributes:
        columns: Headings; the first column is text, the others mostly numbers.
        rows: As many cells each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def methods_table(results: Results, *kinds: str) -> Table:
    """Return what the methods of some kinds scored: means, with intervals over patients."""
    titles = [METRICS[metric].heading for metric in _METHOD_METRICS]
    return Table(
        columns=("method", "cases", "Dice", "median Dice (quartiles)", *titles),
        rows=tuple(
            (
                name,
                str(found["cases"]),
                mean_text(found["metrics"]["dice"], found["cases"]),
                _quartiles(found["metrics"]["dice"]),
                *(
                    mean_text(
                        *(found["metrics"][metric], found["cases"]),
                        digits=2 if METRICS[metric].unit else 3,
                    )
                    for metric in _METHOD_METRICS
                ),
            )
            for name, found in results.methods(*kinds).items()
        ),
    )


def lesions_table(results: Results) -> Table:
    """Return how many lesions each method found, missed and made up, all cases together."""
    return Table(
        columns=("method", "true lesions", "predicted", "missed", "false", "missed cases"),
        rows=tuple(
            (
                name,
                *(str(found["lesions"][key]) for key in ("true", "predicted", "missed", "false")),
                str(found["missed_cases"]),
            )
            for name, found in results.methods(*MAIN_KINDS).items()
        ),
    )


def sizes_table(results: Results) -> Table:
    """Return the Dice of each method by the volume of the true lesion."""
    methods = list(results.methods(*MAIN_KINDS))
    return Table(
        columns=("true volume, ml", "cases", *methods),
        rows=tuple(
            (
                f"{found['low_ml']:g} to {found['high_ml']:g}"
                if found["high_ml"] is not None
                else f"{found['low_ml']:g} and more",
                str(found["cases"]),
                *(
                    mean_text(found["methods"][name]["dice"], found["cases"])
                    if name in found["methods"]
                    else "-"
                    for name in methods
                ),
            )
            for found in results.summary["by_size"]
        ),
    )


def tests_table(results: Results) -> Table:
    """Return the paired comparisons of methods."""
    return Table(
        columns=("first", "second", "cases", "patients", "Dice, first minus second", "p"),
        rows=tuple(
            (
                test["first"],
                test["second"],
                str(test["cases"]),
                str(test["patients"]),
                interval_text({**test, "mean": test["mean_difference"]}),
                f"{test['p']:.3g}",
            )
            for test in results.summary["tests"]
        ),
    )


def cases_table(results: Results) -> Table:
    """Return what the vote scored on each case, the worst first, those without a Dice last."""
    unsure = {
        case["case"]: case["mean_disagreement"] for case in results.summary["disagreement"]["cases"]
    }
    return Table(
        columns=(
            *("case", "patient"),
            *(METRICS[metric].heading for metric in OF_CASES),
            "disagreement of the axes",
        ),
        rows=tuple(
            (
                row.case,
                row.patient,
                *(_metric_cell(metric, row.values[metric]) for metric in OF_CASES),
                number(unsure.get(row.case)),
            )
            for row in results.every_row()
        ),
    )


def steps_table(choice: Mapping[str, Any]) -> Table:
    """Return what each step of the choice of the ensemble tried and brought."""
    return Table(columns=STEP_COLUMNS, rows=tuple(step_rows(choice)))


def board_table(rows: Sequence[LeaderboardRow]) -> Table:
    """Return the best trials of an axis."""
    own = [row for row in rows if row.confirms is None][:BOARD_ROWS]
    return Table(
        columns=("trial", "state", "Dice", "further runs", "best epoch", "epochs", *_PARAMETERS),
        rows=tuple(
            (
                str(row.trial),
                row.state.lower(),
                number(row.dice),
                further_runs(row),
                str(row.best_epoch or "-"),
                str(row.epochs_run),
                *(parameter_text(row.parameters[name]) for name in _PARAMETERS),
            )
            for row in own
        ),
    )


def importances_table(results: Results) -> Table:
    """Return the parameters' importances, a column an axis."""
    axes = list(results.importances)
    names = {name: None for axis in axes for name in results.importances[axis]}
    return Table(
        columns=("parameter", *axes),
        rows=tuple(
            (name, *(number(results.importances[axis].get(name)) for axis in axes))
            for name in names
        ),
    )


def members_table(results: Results) -> Table:
    """Return the members of the ensemble and, after them, those kept for comparisons."""
    ensemble = results.ensemble
    sets = {VOTE: ensemble.members}
    sets.update({f"{VOTE}_{name}": members for name, members in ensemble.comparison.items()})
    return Table(
        columns=("votes in", "axis", "members"),
        rows=tuple(
            (method, axis, ", ".join(name.removesuffix(".safetensors") for name in names))
            for method, members in sets.items()
            for axis, names in members.items()
        ),
    )


def subsets_table(results: Results) -> Table:
    """Return how many patients and cases are in each subset of the split, and what they do."""
    cases = results.preparation.cases.values()
    validation = str(results.experiment.config.splits.validation_fold)
    scorings = {study["scoring"] for study in results.studies.values()}
    k_fold = "k-fold" in (scorings or {results.experiment.config.search.scoring})
    rows = []
    for subset in sorted({case.fold or "" for case in cases}):
        of_subset = [case for case in cases if case.fold == subset]
        if subset == "test":
            use = "locked: no training and no choice sees it"
        elif k_fold:
            use = "trains, and in turn chooses the trials"
        else:
            use = "chooses the trials and the ensemble" if subset == validation else "trains"
        patients = len({case.patient for case in of_subset})
        name = "test" if subset == "test" else f"fold {subset}"
        rows.append((name, str(patients), str(len(of_subset)), use))
    return Table(columns=("subset", "patients", "cases", "use"), rows=tuple(rows))


def provenance_table(results: Results) -> Table:
    """Return what made the results, so that they can be made again."""
    summary, bootstrap = results.summary, results.summary["bootstrap"]
    spacing = " x ".join(f"{side:g}" for side in results.preparation.spacing_mm)
    rows = [
        ("made by", results.command),
        ("strokeseg", summary["code_version"]),
        ("versions", ", ".join(f"{name} {text}" for name, text in summary["versions"].items())),
        ("sequences", ", ".join(results.ensemble.sequences)),
        ("voxels of the networks", f"{spacing} mm"),
        ("data (SHA-256)", summary["preparation_hash"]),
        ("splits (SHA-256)", summary["splits_hash"]),
        ("ensemble (SHA-256)", summary["ensemble_sha256"]),
        ("policy of the metrics", summary["policy"]),
        (
            "intervals",
            f"{bootstrap['confidence']:.0%}, BCa bootstrap over patients, "
            f"{bootstrap['samples']} resamples, seed {bootstrap['seed']}",
        ),
    ]
    return Table(columns=("what", "which"), rows=tuple(rows))


def definitions_table() -> Table:
    """Return what the metrics mean."""
    return Table(
        columns=("metric", "better", "definition"),
        rows=tuple(
            (name.heading, name.better or "-", name.definition) for name in METRICS.values()
        ),
    )


def mean_text(statistic: Mapping[str, Any], cases: int, digits: int = 3) -> str:
    """Return a mean and its interval as text, and over how many cases where these are not all.

    Args:
        statistic: With `mean`, `low`, `high` and `cases`.
        cases: How many there are.
        digits: After the decimal point.
    """
    text = interval_text(statistic, digits)
    if statistic["cases"] == cases or statistic["mean"] is None:
        return text
    known = f"n = {statistic['cases']}"
    return f"{text[:-1]}; {known})" if text.endswith(")") else f"{text} ({known})"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def parameter_text(value: object) -> str:
    """Return a parameter of a trial as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _metric_cell(metric: str, value: float | None) -> str:
    if value is not None and metric.endswith("_lesions"):
        return f"{value:.0f}"
    return number(value, 2 if METRICS[metric].unit else 3)


def _quartiles(statistic: Mapping[str, Any]) -> str:
    if statistic["median"] is None:
        return "-"
    return f"{statistic['median']:.3f} ({statistic['q1']:.3f} to {statistic['q3']:.3f})"
