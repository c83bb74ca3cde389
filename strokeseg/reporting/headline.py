"""What a report says first: how well the ensemble does, on whom, and what to doubt."""

from __future__ import annotations

from strokeseg.reporting.facts import Facts
from strokeseg.summary import VOTE, interval_text

_FEW_PATIENTS = 30


def headline(facts: Facts) -> str:
    """Return the mean Dice of the vote with its interval."""
    return f"Dice {interval_text(facts.summary['methods'][VOTE]['metrics']['dice'])}"


def basis(facts: Facts) -> str:
    """Say over whom the headline is a mean, and how sure it is."""
    summary = facts.summary
    scored = summary["methods"][VOTE]["cases"]
    kind = (
        "test patients that no training and no choice has seen"
        if facts.tested
        else "validation patients, who chose the trials and the ensemble"
    )
    confidence = f"{summary['bootstrap']['confidence']:.0%}"
    return (
        f"Mean 3D Dice of the vote over {_count(scored, 'case')} of "
        f"{_count(summary['patients'], 'patient')}: {kind}. In brackets the {confidence} interval "
        "by bootstrap over patients; every case on its own grid."
    )


def cautions(facts: Facts) -> list[str]:
    """Return what to bear in mind of the numbers."""
    summary, found = facts.summary, []
    if not facts.tested:
        found.append(
            summary.get("caution") or "These patients chose the trials: the scores flatter."
        )
    if summary["failed"]:
        found.append(f"{_count(len(summary['failed']), 'case')} could not be scored; see below.")
    if facts.experiment.config.data.phantom:
        found.append("The cases are simulated: the numbers tell of the program, not of patients.")
    if summary["patients"] < _FEW_PATIENTS:
        found.append(
            f"{_count(summary['patients'], 'patient')} of one data set say little about others; "
            "the interval tells of patients like these only."
        )
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
