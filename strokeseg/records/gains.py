"""What a search has gained, in words: over the default, and run after run."""

from __future__ import annotations

from collections.abc import Sequence

from strokeseg.records.leaderboard import DEFAULT, LeaderboardRow, ranked


def gain_over_default(rows: Sequence[LeaderboardRow]) -> str:
    """Say what the best configuration is better than the default by.

    The score that a trial was chosen for flatters it; the mean of its further runs does not, and
    confirmed trials are ranked by it.
    """
    default = next((row for row in rows if row.origin == DEFAULT), None)
    complete = [row for row in ranked(rows) if row.state == "COMPLETE" and row.confirms is None]
    if default is None or default.dice is None or not complete:
        return "The default (trial 0) has no score, so the gain over it is unknown"
    best = complete[0]
    so_far = "" if default.state == "COMPLETE" else f" after {default.epochs_run} epochs so far"
    named = f"the default (trial {default.trial}, Dice {default.dice:.3f}{so_far})"
    confirmed = default.mean_dice is not None
    if best.trial == default.trial:
        mean = f" by the mean of further runs, {default.mean_dice:.3f}" if confirmed else ""
        return f"No trial was better than {named}{mean}"
    text = f"Gain over {named}: {(best.dice or 0.0) - default.dice:+.3f} by trial {best.trial}"
    if best.mean_dice is None:
        return f"{text}, as it was chosen for its score"
    reference = default.dice if default.mean_dice is None else default.mean_dice
    of_both = f" over that of the default's, {reference:.3f}" if confirmed else ""
    return (
        f"{text}, as it was chosen for its score; {best.mean_dice - reference:+.3f} by the mean "
        f"of its further runs{of_both}"
    )


def further_runs(row: LeaderboardRow) -> str:
    """Return the mean, spread and number of a trial's further runs, or a dash."""
    if row.mean_dice is None:
        return "-"
    spread = "" if row.seed_spread is None else f" ± {row.seed_spread:.3f}"
    return f"{row.mean_dice:.3f}{spread} ({row.runs})"
