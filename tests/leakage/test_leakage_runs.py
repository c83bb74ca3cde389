"""What is measured, what is kept, and the runs themselves, in a real Ray, small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.slice_table import slices_to_table
from strokeseg.leakage.runs import (
    Configuration,
    LeakageScoreStore,
    Pool,
    Run,
    choose_configurations,
    plan_runs,
)
from strokeseg.leakage.tasks import do_runs
from strokeseg.records.config import DataConfig, ExperimentConfig, SearchConfig, TrialConfig
from strokeseg.records.experiment import Experiment
from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.records.leakage import LeakageScores, means
from strokeseg.tuning.space import Space
from strokeseg.tuning.space_file import load_space

SMALL = TrialConfig(
    encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3, augmentation=0
)
BUDGET = SearchConfig(epochs=4, slices_per_epoch=48, seed=5)
FOUND = LeakageScores(
    printed_dice=0.75,
    unseen_dice=0.5,
    best_epoch=1,
    training_slices=8,
    validation_slices=4,
    shared_cases=2,
    validation_cases=2,
    lesion_free_cases=0,
    seconds=1.0,
)


def configuration(name: str = "default", config: TrialConfig = SMALL) -> Configuration:
    return Configuration(name=name, config=config, weights=None)


def row(trial: int, dice: float, state: str = "COMPLETE", **changes: Any) -> LeaderboardRow:
    return LeaderboardRow(
        trial=trial,
        state=state,
        dice=dice,
        best_epoch=1,
        epochs_run=1,
        seconds=1.0,
        reason="",
        origin="sampler" if trial else "default",
        parameters=SMALL.model_copy(update=changes).model_dump(),
    )


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(
        "first: [{learning_rate: 2.0e-3}, {learning_rate: 5.0e-3}]\n"
        "parameters:\n"
        "  encoder: {value: resnet18}\n"
        "  encoder_depth: {choices: [3, 4, 5]}\n"
        "  learning_rate: {low: 1.0e-3, high: 1.0e-2}\n"
    )
    return load_space(path)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(
        name="toy",
        config=ExperimentConfig(data=DataConfig(path="cases")),
        config_path=tmp_path / "experiment.yaml",
        folder=tmp_path / "runs" / "toy",
        data_path=tmp_path / "cases",
    )


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Cases that can only be memorised, as in the divisions' tests, on disk."""
    generator = np.random.default_rng(0)
    square = np.zeros((32, 32), dtype=np.uint8)
    square[:10, :10] = 1
    folder = tmp_path / "slices" / "axis=axial"
    for number in range(12):
        fold, case = number // 4, f"case{number:02}"
        texture = generator.normal(size=(2, 32, 32))
        images = texture + 0.1 * generator.normal(size=(8, 2, 32, 32))
        place = tuple(generator.integers(32, size=2))
        masks = np.repeat(np.roll(square, place, axis=(0, 1))[None], 8, axis=0)
        table = slices_to_table(case, case, images.astype(np.float16), masks, {})
        (folder / f"fold={fold}").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"fold={fold}" / f"{case}.parquet")
    return Pool(
        slices_folder=tmp_path / "slices",
        axis="axial",
        folds=tuple(tuple(f"case{fold * 4 + n:02}" for n in range(4)) for fold in (1, 2)),
        unseen_cases=tuple(f"case{n:02}" for n in range(4)),
        channels=2,
        fingerprint="abc",
    )


def store_of(
    experiment: Experiment, pool: Pool, *configurations: Configuration
) -> LeakageScoreStore:
    return LeakageScoreStore(experiment, pool, configurations or (configuration(),), "1")


def test_without_a_leaderboard_the_spaces_first_point_is_measured(space: Space) -> None:
    (only,) = choose_configurations(space, [], None)
    assert (only.name, only.weights) == ("default", None)
    # What the point leaves out is the space's one value, else what a trial is by default.
    assert only.config == TrialConfig(learning_rate=2e-3, encoder="resnet18", encoder_depth=5)
    assert only.config == space.default_config()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(0, 0.5), row(3, 0.6, batch_size=16)], ["trial 0 (default)", "trial 3 (best)"]),
        ([row(0, 0.7), row(3, 0.6, batch_size=16)], ["trial 0 (default and best)"]),
        # A trial that was stopped early is not the best of anything.
        ([row(0, 0.5), row(3, 0.6, "PRUNED", batch_size=16)], ["trial 0 (default and best)"]),
        (
            [row(0, 0.5, "PRUNED"), row(3, 0.4, batch_size=16)],
            ["trial 0 (default)", "trial 3 (best)"],
        ),
        # Confirmed trials come first, and a further run is its trial's.
        (
            [
                row(0, 0.5),
                row(3, 0.7, batch_size=32),
                replace(row(4, 0.6, batch_size=16), mean_dice=0.55, runs=1),
                replace(row(5, 0.8, batch_size=16), confirms=4),
            ],
            ["trial 0 (default)", "trial 4 (best)"],
        ),
        # The same configuration under another number is no other configuration.
        ([row(0, 0.5, "PRUNED"), row(3, 0.6)], ["trial 0 (default)"]),
    ],
)
def test_with_a_leaderboard_trial_0_and_the_best_are_measured(
    space: Space, rows: list[LeaderboardRow], expected: list[str]
) -> None:
    chosen = choose_configurations(space, rows, None)
    assert [configuration.name for configuration in chosen] == expected
    assert chosen[0].config == SMALL
    assert chosen[-1].config.batch_size == (16 if len(chosen) == 2 else 8)


def test_pretrained_weights_are_found_or_refused(space: Space) -> None:
    pretrained = {"encoder": "tu-tf_efficientnet_lite0", "pretrained": True}
    (found,) = choose_configurations(space, [row(0, 0.5, **pretrained)], None)
    assert found.weights is not None and found.weights.encoder == "tu-tf_efficientnet_lite0"
    with pytest.raises(UserError, match="encoder resnet18"):
        choose_configurations(space, [row(0, 0.5, pretrained=True)], None)


def test_each_seed_validates_on_the_next_fold_of_the_pool(pool: Pool) -> None:
    runs = plan_runs([configuration()], pool, BUDGET, seeds=3)
    assert [(run.level, run.seed) for run in runs] == [
        *(("slice", 5), ("patient", 5), ("slice", 6), ("patient", 6)),
        *(("slice", 7), ("patient", 7)),
    ]
    inner = [run.validation_cases for run in runs[::2]]
    assert inner == [pool.folds[0], pool.folds[1], pool.folds[0]]
    assert [run.validation_cases for run in runs[1::2]] == inner


def test_a_pool_of_one_fold_is_refused(pool: Pool) -> None:
    with pytest.raises(UserError, match="three folds or more.*got 2"):
        plan_runs([configuration()], replace(pool, folds=pool.folds[:1]), BUDGET, seeds=1)


def test_scores_are_found_again_only_for_the_same_inputs(
    experiment: Experiment, pool: Pool
) -> None:
    run, *_ = plan_runs([configuration()], pool, BUDGET, seeds=1)
    store = store_of(experiment, pool)
    assert store.read(run) is None
    store.keep(run, FOUND)
    assert store.read(run) == FOUND
    # The name is only a label: the same configuration may become `trial 0`.
    renamed = replace(run, configuration="trial 0 (default)")
    assert store_of(experiment, pool, configuration("trial 0 (default)")).read(renamed) == FOUND
    others: list[dict[str, Any]] = [
        {"config": SMALL.model_copy(update={"batch_size": 16})},
        {"level": "patient"},
        {"seed": 6},
        {"epochs": 5},
        {"slices_per_epoch": None},
        {"validation_cases": pool.folds[1]},
    ]
    for change in others:
        assert store.read(replace(run, **change)) is None, change
    for change in ({"fingerprint": "xyz"}, {"unseen_cases": ("case00",)}):
        assert store_of(experiment, replace(pool, **change)).read(run) is None, change


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"scores": {"printed_dice": 2}}'])
def test_a_damaged_score_file_is_an_error_that_names_its_file(
    experiment: Experiment, pool: Pool, content: str
) -> None:
    run, *_ = plan_runs([configuration()], pool, BUDGET, seeds=1)
    store = store_of(experiment, pool)
    store.keep(run, FOUND)
    (path,) = (experiment.search_folder("axial") / "leakage").iterdir()
    path.write_text(content)
    with pytest.raises(UserError, match=path.name):
        store.read(run)


@pytest.fixture
def do(experiment: Experiment, pool: Pool, local_ray: None) -> Callable[..., Any]:
    """Do runs and return failures and the reported progress."""

    def work(runs: list[Run], *configurations: Configuration) -> Any:
        reports: list[tuple[int, int, str]] = []
        failures = do_runs(
            runs,
            configurations,
            pool,
            store_of(experiment, pool, *configurations),
            gpus_per_run=0,
            show=lambda *news: reports.append(news),
        )
        return failures, reports

    return work


def test_runs_are_kept_shown_and_give_the_gap_that_must_be_there(
    experiment: Experiment, pool: Pool, do: Callable[..., Any]
) -> None:
    runs = plan_runs([configuration()], pool, BUDGET.model_copy(update={"epochs": 8}), seeds=1)
    failures, reports = do(runs, configuration())
    assert failures == {}
    assert reports[0] == (0, 16, "reading the slices") and reports[-1][:2] == (16, 16)
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    # The bar is full only when all is kept.
    assert [note for done, _, note in reports if done == 16] == ["2 of 2 runs done"]
    store = store_of(experiment, pool)
    assert store.missing(runs) == []
    by_slice, by_patient = (store.read(run) for run in runs)
    assert by_slice is not None and by_patient is not None
    # 8 cases of 8 slices, half of the cases validate.
    for found in (by_slice, by_patient):
        assert (found.training_slices, found.validation_slices) == (32, 32)
    assert (by_slice.shared_cases, by_patient.shared_cases) == (8, 0)
    # As the divisions' test derives: chance gives 0.18, and never 0.5.
    assert by_slice.printed_dice > 0.9 and by_slice.unseen_dice < 0.5
    assert by_patient.printed_dice < 0.5 and by_patient.unseen_dice < 0.5
    averages = means(store.rows(runs, failures))
    assert [average.level for average in averages] == ["slice", "patient"]
    assert averages[0].gap.value == by_slice.gap > 0.4


def test_a_run_again_gives_the_same_scores(
    experiment: Experiment, pool: Pool, do: Callable[..., Any]
) -> None:
    # Two, so that each gets one thread: their number may change the last digits.
    runs = plan_runs([configuration()], pool, BUDGET.model_copy(update={"epochs": 1}), seeds=1)
    store = store_of(experiment, pool)
    repeats = []
    for _ in range(2):
        do(runs, configuration())
        found = [store.read(run) for run in runs]
        repeats.append([one.model_copy(update={"seconds": 0.0}) for one in found if one])
    assert len(repeats[0]) == 2 and repeats[0] == repeats[1]


def test_a_run_that_explodes_is_listed_and_the_others_go_on(
    experiment: Experiment, pool: Pool, do: Callable[..., Any]
) -> None:
    exploding = configuration("exploding", SMALL.model_copy(update={"learning_rate": 1e38}))
    runs = plan_runs([exploding, configuration()], pool, BUDGET, seeds=1)
    failures, reports = do(runs, exploding, configuration())
    assert [run.configuration for run in failures] == ["exploding"] * 2
    assert all("no longer finite" in reason for reason in failures.values())
    assert reports[-1] == (16, 16, "4 of 4 runs done")
    rows = store_of(experiment, pool, exploding, configuration()).rows(runs, failures)
    assert [(row.scores is None, bool(row.reason)) for row in rows] == [
        *((True, True), (True, True), (False, False), (False, False))
    ]
