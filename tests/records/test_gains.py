"""The gain of a search, as it is reported."""

from __future__ import annotations

from typing import Any

import pytest

from strokeseg.records.config import TrialConfig
from strokeseg.records.gains import gain_over_default
from strokeseg.records.leaderboard import LeaderboardRow, with_confirmations


def row(trial: int, dice: float | None, **more: Any) -> LeaderboardRow:
    facts = {
        **{"state": "COMPLETE", "best_epoch": None if dice is None else 2, "epochs_run": 5},
        **{"seconds": 1.0, "reason": "", "parameters": TrialConfig().model_dump()},
        **more,
    }
    return LeaderboardRow(trial=trial, dice=dice, **facts)


def test_the_gain_is_reported_as_chosen_and_as_confirmed() -> None:
    rows = [row(0, 0.5, origin="default"), row(1, 0.7), row(2, 0.45)]
    named = "Gain over the default (trial 0, Dice 0.500): +0.200 by trial 1"
    assert gain_over_default(rows) == f"{named}, as it was chosen for its score"
    further = [row(3, 0.48, confirms=1), row(4, 0.52, confirms=1)]
    assert gain_over_default(with_confirmations([*rows, *further])) == (
        f"{named}, as it was chosen for its score; +0.000 by the mean of its further runs"
    )


def test_a_confirmed_default_is_compared_by_the_mean_of_its_further_runs() -> None:
    rows = [row(0, 0.54, origin="default"), row(1, 0.554), row(2, 0.59, confirms=0)]
    # Trial 1 has the higher score and is below the default all the same: 0.57 < 0.59.
    assert gain_over_default(with_confirmations([*rows, row(3, 0.57, confirms=1)])) == (
        "No trial was better than the default (trial 0, Dice 0.540) by the mean of further runs, "
        "0.590"
    )
    assert gain_over_default(with_confirmations([*rows, row(3, 0.6, confirms=1)])) == (
        "Gain over the default (trial 0, Dice 0.540): +0.014 by trial 1, as it was chosen for its "
        "score; +0.010 by the mean of its further runs over that of the default's, 0.590"
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(0, 0.5, origin="default"), row(1, 0.4)], "No trial was better than the default"),
        ([row(0, None, origin="default", state="FAIL"), row(1, 0.4)], "is unknown"),
        ([], "is unknown"),
        (
            [row(0, 0.1, origin="default", state="RUNNING"), row(1, 0.4)],
            "(trial 0, Dice 0.100 after 5 epochs so far): +0.300",
        ),
        # Stopped early: it was not better for all that is known.
        ([row(0, 0.5, origin="default"), row(1, 0.9, state="PRUNED")], "No trial was better"),
    ],
)
def test_what_is_not_known_or_not_gained_is_reported_as_well(
    rows: list[LeaderboardRow], words: str
) -> None:
    assert words in gain_over_default(rows)
