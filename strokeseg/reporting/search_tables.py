"""The tables of how the ensemble came about: the protocol, the trials, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strokeseg.gains import gain_by_transfer, gain_over_default
from strokeseg.imaging.splits import TEST
from strokeseg.leaderboard import LeaderboardRow, best_by_start, further_runs
from strokeseg.learning.ensemble_record import Rule
from strokeseg.reporting.facts import Facts
from strokeseg.reporting.result_tables import p_text
from strokeseg.reporting.table import MISSING, Table, number

_HEAD = 5
_PARAMETERS = ("encoder", "encoder_depth", "pretrained", "learning_rate")


def protocol_table(facts: Facts) -> Table:
    """Return what one must know to make the numbers again, or to doubt them."""
    preparation, summary, config = facts.preparation, facts.summary, facts.experiment.config
    spacing = " x ".join(f"{side:g}" for side in preparation.spacing_mm)
    bootstrap = summary["bootstrap"]
    rows = [
        ("command", facts.command),
        ("data", "simulated by strokeseg" if config.data.phantom else config.data.layout),
        ("sequences", ", ".join(facts.ensemble.sequences)),
        ("voxels, mm", spacing),
        ("members", ", ".join(_member_names(facts))),
        ("vote", rule_text(facts.ensemble.rule)),
        ("patients", _patients(facts)),
        ("validation", f"fold {config.splits.validation_fold}, scoring by {config.search.scoring}"),
        ("scored", f"{summary['patients']} {summary['on']} patients, {summary['cases']} cases"),
        ("policy", summary["policy"]),
        (
            "intervals",
            f"{bootstrap['confidence']:.0%}, bootstrap over patients, "
            f"{bootstrap['samples']} draws, seed {bootstrap['seed']}",
        ),
        ("data hash", preparation.fingerprint),
        ("splits hash", preparation.splits_hash),
        ("ensemble hash", summary["ensemble_sha256"]),
        ("strokeseg", summary["code_version"]),
        ("versions", ", ".join(f"{name} {text}" for name, text in summary["versions"].items())),
    ]
    return Table(title="The protocol", columns=("what", "value"), rows=rows)


def choice_table(choice: Mapping[str, Any]) -> Table:
    """Return what each step of choosing the ensemble brought on the validation patients."""
    return Table(
        title=f"What each step of the choice brought ({choice['method']}, "
        f"{choice['patients']} validation patients)",
        columns=("step", "tried", "best option", "Dice before", "with it", "gain", "p", "taken"),
        rows=[
            (
                str(step["name"]),
                str(step["tried"]),
                str(step["best"]),
                number(step["dice_before"]),
                number(step["dice_after"]),
                f"{step['gain']:+.3f}",
                MISSING if step["p"] is None else p_text(step["p"]),
                "yes" if step["taken"] else "no",
            )
            for step in choice["steps"]
        ],
        note=" ".join(part for part in (_held_out(choice), choice["caveat"]) if part),
    )


def _held_out(choice: Mapping[str, Any]) -> str:
    left_out = choice.get("left_out")
    if not left_out:
        return ""
    return (
        "With each patient left out of the steps and scored by their result: "
        f"{left_out['dice_start']:.3f} as it started, {left_out['dice_chosen']:.3f} as chosen."
    )


def board_table(axis: str, rows: Sequence[LeaderboardRow]) -> Table:
    """Return the best trials of an axis."""
    own = [row for row in rows if row.confirms is None]
    return Table(
        title=f"{axis}: the best {min(_HEAD, len(own))} of {len(own)} trials",
        columns=("trial", "state", "Dice", "further runs", "best epoch", "epochs", *_PARAMETERS),
        rows=[
            (
                str(row.trial),
                row.state.lower(),
                number(row.dice),
                further_runs(row),
                str(row.best_epoch or MISSING),
                str(row.epochs_run),
                *(setting_text(row.parameters[name]) for name in _PARAMETERS),
            )
            for row in own[:_HEAD]
        ],
        note=" ".join(part for part in (_spent(rows), _gains(rows)) if part),
    )


def comparison_lines(facts: Facts) -> list[str]:
    """Say which trials stand behind the comparison of starts, since their budgets may differ."""
    lines = []
    for name, pretrained in (("pretrained", True), ("scratch", False)):
        if f"vote_{name}" not in facts.summary["methods"]:
            continue
        best = {
            axis: best_by_start(rows, pretrained=pretrained) for axis, rows in facts.boards.items()
        }
        trials = [
            f"{axis} trial {row.trial} ({row.state.lower()}, {row.epochs_run} epochs)"
            for axis, row in best.items()
            if row is not None
        ]
        lines.append(f"vote_{name}: {', '.join(trials)}")
    return lines


def setting_text(value: object) -> str:
    """Return a parameter's value as text."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def rule_text(rule: Rule) -> str:
    """Say how an ensemble votes."""
    axes = {
        "hard": "majority of the axes' masks",
        "soft": "mean of the axes' probabilities",
    }[rule.between]
    weights = ", ".join(f"{axis} {weight:.2f}" for axis, weight in rule.axis_weights.items())
    parts = [
        f"{axes}, threshold {rule.threshold:g}",
        f"members of an axis by {rule.within}",
        f"weights {weights}" if weights else "",
        f"lesions below {rule.smallest_lesion_mm3:g} mm³ dropped"
        if rule.smallest_lesion_mm3
        else "",
    ]
    return "; ".join(part for part in parts if part)


def _member_names(facts: Facts) -> list[str]:
    members = facts.ensemble.members.values()
    return [name.removesuffix(".safetensors") for names in members for name in names]


def _patients(facts: Facts) -> str:
    cases = facts.preparation.cases.values()
    sides = sorted({case.fold or "" for case in cases})
    counts = {side: len({case.patient for case in cases if case.fold == side}) for side in sides}
    return ", ".join(
        f"{count} {'locked for the test' if side == TEST else f'in fold {side}'}"
        for side, count in counts.items()
    )


def _spent(rows: Sequence[LeaderboardRow]) -> str:
    own = [row for row in rows if row.confirms is None]
    states = {
        state: sum(row.state == state for row in own) for state in ("COMPLETE", "PRUNED", "FAIL")
    }
    return (
        f"{states['COMPLETE']} complete, {states['PRUNED']} stopped early, "
        f"{states['FAIL']} failed; {len(rows) - len(own)} further runs of the best; "
        f"{sum(row.epochs_run for row in rows)} epochs, "
        f"{sum(row.seconds for row in rows) / 60:.1f} trial-minutes, "
        f"{sum(row.device_hours for row in rows):.2f} device-hours."
    )


def _gains(rows: Sequence[LeaderboardRow]) -> str:
    said = (gain_over_default(rows), gain_by_transfer(rows))
    return " ".join(f"{sentence}." for sentence in said if sentence)
