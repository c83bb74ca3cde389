"""The tiny experiment: the smallest that every command takes, written in one place.

Its text is data, so that a test changes only the settings it is about. `finished`, a fixture of
`conftest`, is one whole run of it that all tests read; who changes it copies the folder first.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from strokeseg.records.experiment import Experiment, open_experiment

TRIALS, EPOCHS = 2, 2
NAME = "tiny"
_SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"phantom": {"cases": 6, "spacing_mm": 6.0}},
    "splits": {"folds": 2, "test_share": 0.4},
    "search": {
        "space": "space.yaml",
        "trials": TRIALS,
        "epochs": EPOCHS,
        "grace_epochs": EPOCHS,
        "slices_per_epoch": 16,
        "confirm_trials": 0,
    },
}
SPACE = """\
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {value: 8}
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
"""


def write_experiment(
    folder: Path, *, space: str = SPACE, data: Path | None = None, **changes: Mapping[str, Any]
) -> Path:
    """Write the tiny experiment's two files, and return the first.

    Args:
        folder: Where to; a folder `tiny` is made in it.
        data: Cases to take in place of simulated ones.
        changes: Settings by their section, in place of those of the same names.
    """
    settings = {
        section: {**_SETTINGS.get(section, {}), **changes.get(section, {})}
        for section in (*_SETTINGS, *(changes.keys() - _SETTINGS.keys()))
    }
    if data is not None:
        settings["data"] = {"path": str(data), "simulated": True, **changes.get("data", {})}
    config = folder / NAME / "experiment.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    (config.parent / "space.yaml").write_text(space)
    return config


@dataclass(frozen=True, kw_only=True)
class Place:
    """An experiment on disk.

    Attributes:
        config: Its file.
        storage: Where its results lie.
        cases: The scans.
        output: What the command that made it printed.
        more: Further options of the commands that it is given to.
    """

    config: Path
    storage: Path
    cases: Path
    output: str = ""
    more: tuple[object, ...] = ()

    @property
    def experiment(self) -> Experiment:
        return open_experiment(str(self.config), str(self.storage))

    @property
    def folder(self) -> Path:
        return self.storage / NAME

    @property
    def options(self) -> tuple[object, ...]:
        return ("--experiment", self.config, "--storage", self.storage, *self.more)

    def journal(self, axis: str) -> Path:
        return self.folder / "search" / axis / "journal.log"

    def leaderboard(self, axis: str) -> list[dict[str, str]]:
        return rows_of(self.folder / "search" / axis / "leaderboard.csv")

    def test_cases(self) -> list[str]:
        splits = json.loads((self.folder / "prepared" / "splits.json").read_text())
        return [str(case) for case in splits["test"]]

    def copy(self, storage: Path, *parts: str) -> Place:
        """Copy the results, or the named parts of them, to spoil at will."""
        for part in parts or (".",):
            shutil.copytree(self.folder / part, storage / NAME / part)
        return replace(self, storage=storage)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
