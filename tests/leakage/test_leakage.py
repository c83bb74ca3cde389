"""A measurement of leakage from outside, its rows, their means, and what is reported of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import write_experiment

import strokeseg.measure_leakage
from strokeseg.records.config import TrialConfig
from strokeseg.records.leakage import LeakageRow, LeakageScores, means, sentences, write_leakage


def scores(printed: float, unseen: float) -> LeakageScores:
    return LeakageScores(
        printed_dice=printed,
        unseen_dice=unseen,
        best_epoch=2,
        training_slices=30,
        validation_slices=10,
        shared_cases=4,
        validation_cases=4,
        lesion_free_cases=1,
        seconds=1.25,
    )


def row(level: str, seed: int, found: LeakageScores | None, name: str = "default") -> LeakageRow:
    return LeakageRow(
        configuration=name,
        level=level,
        seed=seed,
        config=TrialConfig(encoder="resnet18"),
        scores=found,
        reason="" if found else "exploded",
    )


ROWS = [
    row("slice", 0, scores(0.8, 0.5)),
    row("patient", 0, scores(0.5, 0.6)),
    row("slice", 1, scores(0.6, 0.5)),
    row("patient", 1, None),
]


def test_means_are_over_the_seeds_that_finished() -> None:
    by_slice, by_patient = means(ROWS)
    assert (by_slice.level, by_slice.runs) == ("slice", 2)
    # (0.8 + 0.6) / 2, and the gaps 0.3 and 0.1 deviate by 0.1 from their mean 0.2:
    # sqrt((0.01 + 0.01) / (2 - 1)) = 0.141.
    assert by_slice.printed.value == pytest.approx(0.7)
    assert str(by_slice.gap) == "0.200 ± 0.141"
    assert str(by_slice.unseen) == "0.500 ± 0.000"
    # One run has no spread.
    assert (by_patient.level, by_patient.runs, str(by_patient.gap)) == ("patient", 1, "-0.100")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            ROWS,
            "default: a slice-level split would have printed 0.700 where unseen patients score "
            "0.500: 0.200 too much (patient-level: 0.100 too little).",
        ),
        (
            [row("slice", 0, scores(0.5, 0.6)), row("patient", 0, scores(0.5, 0.5))],
            "default: a slice-level split would have printed 0.500 where unseen patients score "
            "0.600: 0.100 too little (patient-level: neither too much nor too little).",
        ),
        (
            [row("slice", 0, scores(0.5, 0.4)), row("patient", 0, None)],
            "default: a slice-level split would have printed 0.500 where unseen patients score "
            "0.400: 0.100 too much (patient-level: no run finished).",
        ),
        (
            [row("slice", 0, None), row("patient", 0, scores(0.5, 0.4))],
            "default: no slice-level run finished (patient-level: 0.100 too much).",
        ),
    ],
)
def test_the_sentence_says_it_whichever_way_it_turns_out(
    rows: list[LeakageRow], expected: str
) -> None:
    assert sentences(means(rows)) == [expected]


def test_nothing_is_said_of_what_never_finished() -> None:
    assert sentences(means([row("slice", 0, None), row("patient", 0, None)])) == []


def test_every_configuration_has_its_sentence() -> None:
    both = [*ROWS, row("slice", 0, scores(0.5, 0.5), name="trial 3 (best)")]
    assert [line.split(":")[0] for line in sentences(means(both))] == ["default", "trial 3 (best)"]


def test_the_file_has_a_row_a_run_with_scores_or_a_reason(tmp_path: Path) -> None:
    write_leakage(tmp_path / "leakage.csv", ROWS)
    with (tmp_path / "leakage.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(cells["level"], cells["seed"]) for cells in rows] == [
        *(("slice", "0"), ("patient", "0"), ("slice", "1"), ("patient", "1"))
    ]
    scores = ("printed_dice", "unseen_dice", "gap")
    assert [rows[1][name] for name in scores] == ["0.500000", "0.600000", "-0.100000"]
    assert [rows[3][name] for name in (*scores, "reason")] == ["", "", "", "exploded"]
    assert {cells["encoder"] for cells in rows} == {"resnet18"}


SPACE = """\
first: [{encoder: resnet18, learning_rate: 3.0e-3}]
parameters:
  encoder: {choices: [resnet18, resnet34]}
  encoder_depth: {value: 3}
  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
"""


class Place:
    """An experiment on disk that measures leakage on demand."""

    def __init__(self, folder: Path, cases: Path, launch: Callable[..., Any]) -> None:
        splits, search = {"folds": 3, "test_share": 0.2}, {"epochs": 1, "grace_epochs": 1}
        self.config = write_experiment(
            folder, space=SPACE, data=cases, splits=splits, search=search
        )
        self.space = self.config.parent / "space.yaml"
        self.storage = folder / "runs"
        self._launch = launch

    @property
    def search_folder(self) -> Path:
        return self.storage / "tiny" / "search" / "axial"

    def measure(self, *options: object) -> Any:
        return self._launch(
            strokeseg.measure_leakage.main,
            *("--experiment", self.config, "--storage", self.storage),
            *("--axis", "axial", *options),
        )

    def scores(self) -> dict[Path, int]:
        """The kept runs and when they were written."""
        kept = (self.search_folder / "leakage").iterdir()
        return {path: path.stat().st_mtime_ns for path in kept}

    def rows(self) -> list[dict[str, str]]:
        with (self.search_folder / "leakage.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def place(tmp_path: Path, phantom_cases: Path, launch: Callable[..., Any]) -> Place:
    return Place(tmp_path, phantom_cases, launch)


def test_a_measurement_prints_and_keeps_its_runs_and_trains_only_what_is_missing(
    place: Place, local_ray: None
) -> None:
    outcome = place.measure("--seeds", 1)
    assert outcome.code == 0, outcome.err
    assert "Measuring leakage, axial, epochs: 2/2" in outcome.err
    for words in ("printed", "unseen", "gap", "default: a slice-level split would have printed"):
        assert words in outcome.out
    by_slice, by_patient = place.rows()
    assert (by_slice["level"], by_patient["level"]) == ("slice", "patient")
    for cells in (by_slice, by_patient):
        gap = float(cells["printed_dice"]) - float(cells["unseen_dice"])
        assert float(cells["gap"]) == pytest.approx(gap, abs=2e-6)
        assert (cells["encoder"], cells["encoder_depth"], cells["reason"]) == ("resnet18", "3", "")
    assert by_slice["training_slices"] == by_patient["training_slices"]
    assert int(by_slice["shared_cases"]) > 0 and by_patient["shared_cases"] == "0"
    # It searches nothing.
    assert not (place.search_folder / "journal.log").exists()
    assert not [path for path in place.storage.rglob("*") if ".partial" in path.name]

    # One score file lost: one run, and the other's file is not touched.
    before, rows = place.scores(), place.rows()
    (lost,) = (path for path in before if path.name.startswith("slice"))
    lost.unlink()
    outcome = place.measure("--seeds", 1)
    assert outcome.code == 0, outcome.err
    assert "Measuring leakage, axial, epochs: 1/1" in outcome.err
    after = place.scores()
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {lost}
    assert place.rows()[1] == rows[1]

    # Nothing lost: nothing is trained.
    outcome = place.measure("--seeds", 1)
    assert outcome.code == 0 and "Measuring" not in outcome.err
    assert place.scores() == after


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", 0), "--seeds"),
        (("--epochs", 0), "epochs"),
        (("--weights-dir", "nowhere"), "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_prepared(
    place: Place, options: tuple[object, ...], words: str
) -> None:
    place.space.write_text(
        SPACE.replace("3.0e-3}", "3.0e-3, pretrained: true}") + "  pretrained: {value: true}\n"
    )
    outcome = place.measure(*options)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert words in line
    assert not (place.storage / "tiny" / "prepared").exists()


def test_two_folds_are_too_few(place: Place, local_ray: None) -> None:
    place.config.write_text(place.config.read_text().replace("folds: 3", "folds: 2"))
    outcome = place.measure()
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "three folds or more" in line and "splits.folds" in line
    assert not place.search_folder.exists()
