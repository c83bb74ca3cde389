from __future__ import annotations

from pathlib import Path

import pytest

from strokeseg.errors import UserError
from strokeseg.records.summary import METRICS, ScoreRow, interval_text, read_scores, write_scores


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    values: dict[str, float | None] = {**dict.fromkeys(METRICS, 1 / 3), "hd95_mm": None}
    row = ScoreRow(case="a, b", patient="p", method="vote", kind="vote", values=values)
    write_scores(tmp_path / "metrics.csv", [row])
    assert read_scores(tmp_path / "metrics.csv") == [row]


def test_a_table_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("case,dice\n1,0.5\n")
    with pytest.raises(UserError, match="is no table of scores") as refusal:
        read_scores(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("statistic", "text"),
    [
        ({"mean": 0.61234, "low": 0.5, "high": 0.7}, "0.612 (0.500 to 0.700)"),
        ({"mean": 0.5, "low": None, "high": None}, "0.500"),
        ({"mean": None, "low": None, "high": None}, "-"),
    ],
)
def test_a_mean_is_shown_with_its_interval_if_there_is_one(
    statistic: dict[str, float | None], text: str
) -> None:
    assert interval_text(statistic) == text
