"""The tally answers as a walk over all rows would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from strokeseg.leaderboard import LeaderboardRow, best_complete
from strokeseg.tuning.tally import Tally

EPOCHS, TARGET = 4, 0.9


def started(number: int, **facts: Any) -> LeaderboardRow:
    return LeaderboardRow(
        **{
            "trial": number,
            "state": "RUNNING",
            "dice": None,
            "best_epoch": None,
            "epochs_run": 0,
            "seconds": 0.0,
            "reason": "",
            "parameters": {"encoder_depth": number % 7, "learning_rate": 0.1},
            **facts,
        }
    )


def walked(rows: dict[int, LeaderboardRow], number: int) -> dict[str, Any]:
    """What the tally shall say, as the plainest code says it."""
    own = [row for row in rows.values() if row.confirms is None and not row.inherited]
    further = [row for row in rows.values() if row.confirms is not None]
    listed = [row for row in rows.values() if row.listed]
    scored = [row for row in listed if row.dice is not None]
    alike = (
        row.trial
        for row in listed
        if row.trial != number and row.confirms is None and row.state != "FAIL"
        if row.parameters == rows[number].parameters
    )
    enough = (r for r in scored if r.state == "COMPLETE" and (r.dice or 0) >= TARGET)
    return {
        "own": len(own),
        "own_ended": sum(row.state != "RUNNING" for row in own),
        "further_ended": sum(row.state != "RUNNING" for row in further),
        "runs": [
            sum(row.confirms == 0 and (row.state != "RUNNING") is ended for row in further)
            for ended in (False, True)
        ],
        "best": max(scored, key=lambda row: (row.dice or 0.0, -row.trial), default=None),
        "best_complete": [row.trial for row in best_complete(listed, 3)],
        "epochs_done": sum(
            EPOCHS if row.state != "RUNNING" else row.epochs_run
            for row in rows.values()
            if not row.inherited
        ),
        "twin": next(alike, None),
        "reached": next(enough, None),
    }


def told(tally: Tally, number: int) -> dict[str, Any]:
    return {
        "own": tally.own,
        "own_ended": tally.own_ended,
        "further_ended": tally.further_ended,
        "runs": [tally.further_runs(0, ended=ended) for ended in (False, True)],
        "best": tally.best(),
        "best_complete": tally.best_complete(3),
        "epochs_done": tally.epochs_done(EPOCHS),
        "twin": tally.twin(number, tally[number].parameters),
        "reached": tally.reached_target(),
    }


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_those_of_a_walk_on_any_history(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tally, rows = Tally(TARGET), {}
    for number in (int(number) for number in generator.permutation(30)):
        kinds: list[dict[str, Any]] = [
            *({}, {}, {}),
            {"confirms": 0},
            {"inherited": True, "listed": bool(number % 2), "state": "COMPLETE", "dice": 0.5},
            # A process may end before its trial has a configuration.
            {"parameters": {}},
        ]
        rows[number] = started(number, **kinds[generator.integers(len(kinds))])
        tally.put(rows[number])
        for other in [row for row in rows.values() if row.state == "RUNNING"]:
            if generator.random() < 0.2:
                continue
            change = generator.random()
            dice = round(float(generator.random()), 1)
            row = replace(other, dice=dice, epochs_run=other.epochs_run + 1)
            if change < 0.1:
                row = replace(row, state="FAIL")
            elif change < 0.3:
                row = replace(row, state="COMPLETE")
            elif not other.parameters:
                row = replace(row, parameters={"encoder_depth": 1, "learning_rate": 0.1})
            elif change < 0.4:
                tally.drop(row.trial)
                del rows[row.trial]
                continue
            tally.put(row)
            rows[row.trial] = row
        for asked in rows:
            assert told(tally, asked) == walked(rows, asked)
    assert [row.trial for row in tally.listed()] == sorted(
        row.trial for row in rows.values() if row.listed and row.parameters
    )


def test_an_empty_tally_has_no_best_and_no_twin() -> None:
    tally = Tally(None)
    assert tally.best() is None and tally.reached_target() is None
    assert tally.twin(0, {"encoder_depth": 3}) is None and tally.listed() == []
