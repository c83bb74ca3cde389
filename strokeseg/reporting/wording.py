"""The sentences of a report, for the page and its twin in Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strokeseg.records.gains import gain_over_default
from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.records.phrases import count
from strokeseg.records.summary import VOTE, few_patients_notes
from strokeseg.reporting.results import Results

# The p of a rank correlation is an approximation that few cases make a lie: 0 for three of them.
_FEWEST_FOR_P = 10
_SIGNIFICANT_P = 0.05
_USUAL_POLICY = "isles22"


def headline(results: Results) -> str:
    """Say on whom the Dice was measured."""
    vote, policy = results.summary["methods"][VOTE], results.summary["policy"]
    cases = vote["metrics"]["dice"]["cases"]
    patients = len({row.patient for row in results.rows(VOTE)})
    whom = (
        "that no training and no choice has seen"
        if results.on_test
        else "that also chose the trials"
    )
    text = (
        f"Mean 3D Dice of the ensemble over {count(cases, 'case')} of "
        f"{count(patients, 'patient')} {whom}, on each case's own grid"
    )
    if policy != _USUAL_POLICY:
        text += f", by the policy {policy}"
    undefined = vote["cases"] - cases
    return f"{text}; {count(undefined, 'further case')} had no Dice" if undefined else text


def cautions(results: Results) -> list[str]:
    """Return what to bear in mind before the numbers are believed."""
    lines = []
    if results.experiment.config.data.is_simulated:
        lines.append(
            "The cases are simulated: the numbers tell how the program behaves, and nothing of "
            "patients."
        )
    if not results.on_test:
        lines.append(f"No test: {results.summary['caution']}.")
    if again := results.searched_again:
        lines.append(
            f"Searched again since the ensemble was promoted: {', '.join(again)}. Trials and gains "
            "shown of that are of the new search, members and scores of the one before; promote "
            "and evaluate again."
        )
    patients = len({row.patient for row in results.rows(VOTE)})
    lines.append(
        f"{count(patients, 'patient')} of one data set say little about other scanners, "
        "hospitals, stroke stages or diseases. For research only; this is no medical device."
    )
    return lines


def accuracy(results: Results) -> str:
    """Say the voxel accuracy, which means nothing without that of an empty mask."""
    metrics = results.summary["methods"][VOTE]["metrics"]
    reached, empty = metrics["accuracy"]["mean"], metrics["accuracy_empty"]["mean"]
    if reached is None or empty is None:
        return ""
    return (
        f"Voxel accuracy of the vote: {reached:.4f}; a mask without any lesion would have "
        f"{empty:.4f}."
    )


def tests_note(results: Results) -> str:
    """Say how methods were compared."""
    tests = results.summary["tests"]
    if not tests:
        return ""
    patients = min(test["patients"] for test in tests)
    text = " ".join(
        [
            f"{tests[0]['test']}, each patient once; the p are not corrected for their number.",
            *few_patients_notes(patients),
        ]
    )
    # All signs alike are the rarest that can be, on either side.
    smallest = min(1.0, 2 / 2**patients)
    if smallest <= _SIGNIFICANT_P:
        return text
    return (
        f"{text} So few patients cannot support a difference, however large: the smallest p that "
        f"{count(patients, 'patient')} can give is {smallest:.3g}."
    )


def volume_note(results: Results) -> str:
    """Say what the plot of Dice by volume shows, and what it cannot."""
    without = sum(not row.values["true_ml"] for row in results.rows(VOTE))
    left_out = f" Left out: {count(without, 'case')} without a lesion." if without else ""
    return f"Every point is a case; the volume is that of its true lesion.{left_out}"


def disagreement_note(results: Results) -> str:
    """Say whether disagreement of the axes tells of errors."""
    found = results.summary["disagreement"]
    rank, voxel = found["spearman"], found["voxel"]
    lines = []
    if rank["rho"] is not None:
        known = rank["p"] is not None and rank["cases"] >= _FEWEST_FOR_P
        p = f", p = {rank['p']:.2g}" if known else ""
        lines.append(
            "Rank correlation of a case's mean disagreement with 1 - Dice: "
            f"{rank['rho']:.2f}{p} ({count(rank['cases'], 'case')})."
        )
    if voxel["mean_auroc"] is not None:
        lines.append(
            "Area under the ROC curve with which a voxel's disagreement tells errors from the "
            f"rest: {voxel['mean_auroc']:.3f} (mean over {count(voxel['cases'], 'case')}; 0.5 "
            "is chance)."
        )
    return " ".join(lines) or "Too few cases to tell whether disagreement goes with error."


def choice_notes(results: Results) -> list[str]:
    """Say how the ensemble was chosen and what it is to be believed."""
    choice = results.choice
    lines = [f"How it votes: {results.ensemble.rule.in_words()}."]
    if choice is None or choice["method"] == "vote":
        return [*lines, "No step was tried: the best trials of each axis vote as they are."]
    lines.append(
        f"Mean 3D Dice over {count(choice['patients'], 'validation patient')}: "
        f"{choice['dice_start']:.3f} as it started, {choice['dice_chosen']:.3f} as promoted."
    )
    if choice["left_out"]:
        lines.append(
            "With each patient left out of the steps and scored by their result: "
            f"{choice['left_out']['dice_start']:.3f} as it started, "
            f"{choice['left_out']['dice_chosen']:.3f} as chosen."
        )
    if choice["method"] == "guard" and choice["smallest_p"] > choice["significant_p"]:
        lines.append(
            f"So few patients cannot support a step: the smallest p they can give is "
            f"{choice['smallest_p']:.3g}, and {choice['significant_p']:g} is asked for."
        )
    return [*lines, f"p: {choice['test']}.", choice["caveat"]]


def comparison_notes(results: Results) -> list[str]:
    """Say which trials stand behind the comparison of starts, since their budgets may differ."""
    lines = []
    for name, members in results.ensemble.comparison.items():
        trials = [
            f"{axis} trial {row.trial} ({row.state.lower()}, {count(row.epochs_run, 'epoch')})"
            for axis, files in members.items()
            for row in results.boards[axis]
            if any(file.startswith(f"{axis}-{row.trial:04d}") for file in files)
        ]
        lines.append(f"{VOTE}_{name}: {', '.join(trials)}.")
    return lines


def search_note(results: Results) -> str:
    """Say by what trials were proposed and scored, axis by axis where that differs."""
    axes: dict[str, list[str]] = {}
    for axis in results.boards:
        axes.setdefault(_protocol(results, axis), []).append(axis)
    if len(axes) == 1:
        return f"Trials were {next(iter(axes))}."
    return " ".join(f"Trials of {', '.join(of)} were {text}." for text, of in axes.items())


def _protocol(results: Results, axis: str) -> str:
    search = results.experiment.config.search
    # Options of the command line win over the experiment's file.
    study: Mapping[str, Any] = results.studies.get(axis) or search.model_dump()
    fold = results.experiment.config.splits.validation_fold
    scored = (
        "over the patients of all folds, each by a network that was not trained on them"
        if study["scoring"] == "k-fold"
        else f"over the patients of fold {fold}"
    )
    complete = (row.epochs_run for row in results.boards[axis] if row.state == "COMPLETE")
    return (
        f"proposed by {study['sampler']} (seed {study['seed']}) and scored by mean 3D Dice "
        f"{scored}; a full trial has {max(complete, default=0)} epochs of "
        f"{study['slices_per_epoch'] or 'all'} slices"
    )


def axis_notes(rows: Sequence[LeaderboardRow]) -> list[str]:
    """Say what the trials of an axis cost and gained."""
    own = [row for row in rows if row.confirms is None]
    states = {
        state: sum(row.state == state for row in own) for state in ("COMPLETE", "PRUNED", "FAIL")
    }
    cost = (
        f"{count(len(own), 'trial')}: {states['COMPLETE']} complete, {states['PRUNED']} stopped "
        f"early, {states['FAIL']} failed; "
        f"{count(len(rows) - len(own), 'further run')} of the best; "
        f"{sum(row.epochs_run for row in rows)} epochs, "
        f"{sum(row.seconds for row in rows) / 60:.1f} trial-minutes, "
        f"{sum(row.device_hours for row in rows):.2f} device-hours."
    )
    return [cost, f"{gain_over_default(rows)}."]
