"""The card that travels with a bundle: what it is, what made it, and what was measured.

It says nothing that was not measured, and names what was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strokeseg.exporting.monai_files import SCHEMA_NAME
from strokeseg.imaging.cases import TEST
from strokeseg.imaging.metric_names import METRICS, OF_METHODS
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.experiment import Experiment
from strokeseg.records.phrases import STEP_COLUMNS, count, step_rows
from strokeseg.records.preparation import Preparation
from strokeseg.records.scores import Summary
from strokeseg.records.summary import VOTE, few_patients_notes
from strokeseg.reporting.markdown_text import markdown_table

_HASH_DIGITS = 16


def model_card(
    experiment: Experiment,
    ensemble: EnsembleRecord,
    preparation: Preparation,
    *,
    summary: Summary | None,
    choice: Mapping[str, Any] | None,
    parity: str,
) -> str:
    """Return the card as Markdown.

    Args:
        summary: What `evaluate` measured of it; None when it did not.
        choice: What `choice.json` says; None when there is none.
        parity: How ONNX was compared with PyTorch, in a sentence.
    """
    parts = [
        f"# {ensemble.name}: ischemic stroke lesion segmentation",
        "For research only; this is no medical device.",
        _simulated(experiment),
        _use(ensemble),
        "## The ensemble",
        _members(ensemble),
        parity,
        "## What it was trained on",
        _training(experiment, ensemble, preparation),
        *_choice(choice),
        *_results(experiment, preparation, summary),
        "## Never tested",
        "How it does on scanners, hospitals, field strengths, stroke stages, age groups or "
        "diseases other than those of its data; on scans with motion or missing slices; and in "
        "the hands of a clinician.",
        "## Licence",
        "See `LICENSE`: whoever exported this bundle decides.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def described_data(experiment: Experiment, preparation: Preparation) -> str:
    """Say in one sentence what an ensemble was trained on."""
    trained = [name for name, case in preparation.cases.items() if case.fold != TEST]
    patients = {preparation.cases[name].patient for name in trained}
    kind = "simulated " if experiment.config.data.is_simulated else ""
    return (
        f"{len(trained)} {kind}cases of {len(patients)} patients trained and chose it; "
        f"{len(preparation.cases) - len(trained)} more were locked away for the test."
    )


def _simulated(experiment: Experiment) -> str:
    if not experiment.config.data.is_simulated:
        return ""
    return (
        "**Its data were simulated.** No patient was ever scanned for it: it shows that the "
        "software works, and nothing about medicine."
    )


def _use(ensemble: EnsembleRecord) -> str:
    spacing = " x ".join(f"{side:g}" for side in ensemble.spacing_mm or ())
    resampled = f"; cases of another voxel size than {spacing} mm are resampled" if spacing else ""
    return (
        f"Input: {', '.join(ensemble.sequences)}, skull-stripped and on one grid{resampled}. "
        "Output: a lesion mask on the input's own grid.\n\n"
        "In a checkout of strokeseg:\n\n"
        "    pip install '.[predict]'\n"
        "    strokeseg predict --bundle bundle.zip --input CASES --output MASKS\n\n"
        "In the unpacked bundle, MONAI can verify what it says of itself:\n\n"
        "    python -m monai.bundle verify_metadata --meta_file configs/metadata.json "
        f"--filepath {SCHEMA_NAME}"
    )


def _members(ensemble: EnsembleRecord) -> str:
    lines = [
        f"- {axis}: {', '.join(name.removesuffix('.safetensors') for name in names)}"
        for axis, names in ensemble.members.items()
    ]
    lines.append(f"- how it votes: {ensemble.rule.in_words()}")
    return "2D networks, one for every line of sight through the brain:\n\n" + "\n".join(lines)


def _training(experiment: Experiment, ensemble: EnsembleRecord, preparation: Preparation) -> str:
    return "\n".join(
        [
            f"- {described_data(experiment, preparation)}",
            f"- data `{ensemble.preparation_hash[:_HASH_DIGITS]}`, "
            f"splits `{preparation.splits_hash[:_HASH_DIGITS]}`, by patient",
            f"- strokeseg {ensemble.code_version}",
        ]
    )


def _choice(choice: Mapping[str, Any] | None) -> list[str]:
    if choice is None or not choice["steps"]:
        return []
    return [
        "## How it was chosen",
        f"By `{choice['method']}`, on {count(choice['patients'], 'validation patient')}.",
        markdown_table(STEP_COLUMNS, step_rows(choice)),
        str(choice["caveat"]),
    ]


def _results(
    experiment: Experiment, preparation: Preparation, summary: Summary | None
) -> list[str]:
    if summary is None:
        return ["## How well it does", "That was not measured before it was exported."]
    vote = summary["methods"][VOTE]
    unseen = summary["on"] == "test"
    subset = TEST if unseen else str(experiment.config.splits.validation_fold)
    failed = [name for name in preparation.names(subset) if name in summary["failed"]]
    scored = [name for name in preparation.names(subset) if name not in failed]
    patients = len({preparation.cases[name].patient for name in scored})
    kind = (
        "that no training and no choice has seen"
        if unseen
        else "by which it was chosen: **these scores flatter it**"
    )
    confidence = summary["bootstrap"]["confidence"]
    return [
        f"## How well it does on {'unseen test' if unseen else 'validation'} cases",
        f"Means over {count(vote['cases'], 'case')} of {count(patients, 'patient')} {kind}, in 3D "
        f"on each case's own grid, metrics as by `{summary['policy']}`; the intervals are of "
        f"{confidence:.0%}, over patients.",
        *few_patients_notes(patients),
        *([f"Caution: {caution}."] if (caution := summary["caution"]) else []),
        markdown_table(("metric", "mean", "interval", "median", "cases"), _metric_rows(vote)),
        "Dice by the volume of the true lesion:",
        markdown_table(("volume, ml", "cases", "mean Dice", "interval"), _size_rows(summary)),
        *_failures(failed),
    ]


def _metric_rows(vote: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            METRICS[metric].heading,
            _number(statistic["mean"]),
            _interval(statistic["low"], statistic["high"]),
            _number(statistic["median"]),
            str(statistic["cases"]),
        )
        for metric in OF_METHODS
        if (statistic := vote["metrics"].get(metric)) is not None
    ]


def _size_rows(summary: Summary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for size in summary["by_size"]:
        # Of a bin whose only cases failed, there are no more than others' masks.
        if VOTE not in size["methods"]:
            continue
        high = size["high_ml"]
        dice = size["methods"][VOTE]["dice"]
        interval = _interval(dice["low"], dice["high"])
        name = f"above {size['low_ml']:g}" if high is None else f"{size['low_ml']:g} to {high:g}"
        rows.append((name, str(dice["cases"]), _number(dice["mean"]), interval))
    return rows


def _failures(failed: Sequence[str]) -> list[str]:
    # Without names and reasons, which tell of patients and of the machine that scored.
    return [f"Could not be scored, and in no mean: {count(len(failed), 'case')}."] if failed else []


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
