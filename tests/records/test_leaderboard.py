"""The leaderboard as a contract with scripts, and the choice of members from it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from strokeseg.errors import UserError
from strokeseg.records.config import TrialConfig
from strokeseg.records.leaderboard import (
    LeaderboardRow,
    best_by_start,
    best_members,
    ranked,
    read_leaderboard,
    trials_to_keep,
    with_confirmations,
    write_leaderboard,
)


def row(
    trial: int,
    dice: float | None,
    state: str = "COMPLETE",
    *,
    pretrained: bool = False,
    reason: str = "",
    confirms: int | None = None,
) -> LeaderboardRow:
    return LeaderboardRow(
        trial=trial,
        state=state,
        dice=dice,
        best_epoch=None if dice is None else 3,
        epochs_run=0 if dice is None else 4,
        seconds=12.5,
        spread=None if dice is None else 0.125,
        device_hours=0.25,
        confirms=confirms,
        reason=reason,
        parameters=TrialConfig(pretrained=pretrained, learning_rate=3.3e-4).model_dump(),
    )


def test_columns_are_those_that_scripts_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    write_leaderboard(path, [row(0, 0.5)])
    with path.open(newline="") as file:
        header, line = csv.reader(file)
    fixed = ["trial", "state", "dice", "best_epoch", "epochs_run", "seconds", "reason"]
    fixed += ["spread", "device_hours", "origin", "confirms", "runs", "mean_dice", "seed_spread"]
    assert header == [*fixed, *TrialConfig.model_fields]
    assert line[:7] == ["0", "COMPLETE", "0.500000", "3", "4", "12.5", ""]
    assert line[7:14] == ["0.125000", "0.250000", "sampler", "", "0", "", ""]


def test_best_trials_come_first_and_those_without_a_score_last(tmp_path: Path) -> None:
    rows = [
        row(0, None, "FAIL", reason="CUDA, out of\nmemory"),
        row(1, 0.2, "PRUNED"),
        row(2, 0.7),
        row(3, 0.0),
        row(4, 0.7),
        row(5, None, "RUNNING"),
    ]
    write_leaderboard(tmp_path / "a.csv", rows)
    assert [read.trial for read in read_leaderboard(tmp_path / "a.csv")] == [2, 4, 1, 3, 0, 5]


def test_rows_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        row(0, 0.625, pretrained=True),
        row(1, 0.25, "PRUNED", reason='stopped after epoch 4: "others", they were better'),
        row(2, None, "FAIL", reason="TrialFailure: loss is nan"),
    ]
    write_leaderboard(tmp_path / "a.csv", rows)
    assert read_leaderboard(tmp_path / "a.csv") == rows


def test_a_board_without_a_trial_reads_back_empty(tmp_path: Path) -> None:
    write_leaderboard(tmp_path / "a.csv", [])
    assert read_leaderboard(tmp_path / "a.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        "case,method\n1,vote\n",
        "trial,state,dice,best_epoch,epochs_run,seconds,reason\n0,COMPLETE,0.5,1,1,1.0,\n",
        "trial,state,dice,best_epoch,epochs_run,seconds,reason\nx,COMPLETE,0.5,1,1,1.0,\n",
    ],
)
def test_a_file_that_is_no_leaderboard_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=r"a\.csv: is no leaderboard") as caught:
        read_leaderboard(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


BOARD = [
    row(0, 0.5),
    row(1, 0.9, "PRUNED", pretrained=True),
    row(2, 0.6),
    row(3, 0.6),
    row(4, None, "FAIL"),
    row(5, 0.95, "FAIL"),
    row(6, 0.99, "RUNNING"),
]


@pytest.mark.parametrize(
    ("rows", "count", "trials"),
    [
        # Only complete trials, best first; of equal ones the earlier.
        (BOARD, 1, [2]),
        (BOARD, 2, [2, 3]),
        (BOARD, 3, [2, 3, 0]),
        (BOARD, 9, [2, 3, 0]),
        (BOARD[4:], 1, []),
        ([row(0, 0.0)], 1, [0]),
        ([], 1, []),
    ],
)
def test_members_are_the_best_complete_trials(
    rows: list[LeaderboardRow], count: int, trials: list[int]
) -> None:
    assert [member.trial for member in best_members(rows, count)] == trials


@pytest.mark.parametrize(
    ("rows", "pretrained", "trial"),
    [
        (BOARD, False, 2),
        # No pretrained trial is complete: the best one stopped early will do.
        (BOARD, True, 1),
        # A complete trial comes before a better one that was stopped.
        ([*BOARD, row(7, 0.1, pretrained=True)], True, 7),
        ([row(0, 0.3)], True, None),
        ([row(0, None, "FAIL", pretrained=True)], True, None),
        ([row(0, 0.9, "FAIL", pretrained=True)], True, None),
        ([row(0, 0.0, "PRUNED", pretrained=True)], True, 0),
    ],
)
def test_the_best_of_each_start(
    rows: list[LeaderboardRow], pretrained: bool, trial: int | None
) -> None:
    best = best_by_start(rows, pretrained=pretrained)
    assert (None if best is None else best.trial) == trial


@pytest.mark.parametrize(
    ("rows", "count", "kept"),
    [
        # Members 2 and 3; of the starts 2 (scratch) and 1 (pretrained).
        (BOARD, 2, {1, 2, 3}),
        (BOARD, 1, {1, 2}),
        ([row(0, 0.4, pretrained=True), row(1, 0.3), row(2, 0.2)], 1, {0, 1}),
        ([row(0, None, "FAIL")], 1, set()),
        ([], 3, set()),
    ],
)
def test_weights_are_kept_of_all_that_promote_may_ask_for(
    rows: list[LeaderboardRow], count: int, kept: set[int]
) -> None:
    assert trials_to_keep(rows, count) == kept


# Trial 1 scored best and was not as good again; trial 0's further runs are the better ones.
CONFIRMED = with_confirmations(
    [
        row(0, 0.7),
        row(1, 0.8),
        row(2, 0.75),
        row(3, 0.72, confirms=0),
        row(4, 0.66, confirms=0),
        row(5, 0.6, confirms=1),
        row(6, None, "FAIL", confirms=1),
        row(7, 0.99, "RUNNING", confirms=1),
    ]
)


def test_further_runs_give_a_trial_its_mean_and_spread() -> None:
    assert (CONFIRMED[0].runs, CONFIRMED[0].mean_dice) == (2, pytest.approx(0.69))
    # 0.72 and 0.66 are 0.03 from their mean: sqrt(2 * 0.03 ** 2 / 1).
    assert CONFIRMED[0].seed_spread == pytest.approx(0.0424264)
    assert (CONFIRMED[1].runs, CONFIRMED[1].mean_dice, CONFIRMED[1].seed_spread) == (1, 0.6, None)
    assert (CONFIRMED[2].runs, CONFIRMED[2].mean_dice) == (0, None)


def test_confirmed_trials_lead_the_board_and_luck_is_not_promoted(tmp_path: Path) -> None:
    assert [r.trial for r in ranked(CONFIRMED)][:3] == [0, 1, 7]
    write_leaderboard(tmp_path / "a.csv", CONFIRMED)
    read = read_leaderboard(tmp_path / "a.csv")
    assert (read[0].trial, read[0].runs, read[0].mean_dice) == (0, 2, pytest.approx(0.69))
    # Of the best configuration its best run; then the next one's; then the unconfirmed.
    assert [r.trial for r in best_members(CONFIRMED, 1)] == [3]
    assert [r.trial for r in best_members(CONFIRMED, 3)] == [3, 1, 2]
    assert {0, 1, 2, 3} <= trials_to_keep(CONFIRMED, 3)
    # A further run is never the best of its start by itself.
    best = best_by_start(CONFIRMED, pretrained=False)
    assert best is not None and best.trial == 0


def test_weights_of_all_confirmed_trials_are_kept() -> None:
    # Trials 6 and 7 lead by score and by their first further run; the next may end that.
    rows = [row(0, 0.6), row(1, 0.58), row(6, 0.7), row(7, 0.69)]
    further = [(2, 0.6, 0), (3, 0.58, 1), (8, 0.7, 6), (9, 0.66, 7)]
    board = [*rows, *(row(number, dice, confirms=of) for number, dice, of in further)]
    kept = trials_to_keep(with_confirmations(board), 2)
    assert {0, 1, 6, 7} <= kept
    ended = with_confirmations([*board, row(10, 0.4, confirms=6), row(11, 0.4, confirms=7)])
    assert {member.trial for member in best_members(ended, 1)} <= kept
