"""The demo keeps its promise: a vote of 0.6 or more on cases that nothing has seen."""

import csv
import json
from statistics import fmean

import pytest

from strokeseg import run


@pytest.mark.slow
def test_the_demo_votes_well_on_its_unseen_cases(tmp_path, capsys):
    assert run.main(["--storage", str(tmp_path)]) == 0
    folder = tmp_path / "demo"
    with (folder / "evaluation" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "vote"]
    test = json.loads((folder / "prepared" / "splits.json").read_text())["test"]
    assert sorted(row["case"] for row in rows) == sorted(test)
    assert fmean(float(row["dice"]) for row in rows) >= 0.6
    printed = capsys.readouterr().out
    assert all(method in printed for method in ("axial", "coronal", "sagittal", "vote"))
    assert "Next: read " in printed
    assert (folder / "bundle.zip").is_file()
