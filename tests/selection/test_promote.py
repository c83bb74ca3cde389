"""What `promote` leaves and says of an experiment that is small but whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

import strokeseg.promote
from strokeseg.ensemble.torch_predictor import load_ensemble
from strokeseg.imaging.slices import AXES
from strokeseg.records.ensemble import RECORD_NAME, read_ensemble_record
from strokeseg.records.experiment import Experiment, trial_weights

pytestmark = pytest.mark.usefixtures("local_ray")

Searched = Callable[..., Experiment]
STEPS = {"members an axis", "soft vote", "threshold", "smallest lesion"}


def launch_promote(launch: Callable[..., Any], experiment: Experiment) -> Any:
    return launch(
        strokeseg.promote.main,
        *("--experiment", experiment.config_path, "--storage", experiment.folder.parent),
        *("--device", "cpu"),
    )


def choice_of(experiment: Experiment) -> Any:
    return json.loads(experiment.choice_json.read_text())


def test_two_patients_cannot_support_a_step_and_the_plain_vote_stays(
    searched: Searched, launch: Callable[..., Any]
) -> None:
    experiment = searched()
    outcome = launch_promote(launch, experiment)
    assert outcome.code == 0, outcome.err
    assert "2 patients cannot support any step (p is 0.25 at least" in outcome.out
    assert "What each step brought" in outcome.out
    record = read_ensemble_record(experiment.ensemble_folder / RECORD_NAME)
    assert record.rule.model_dump() == type(record.rule)().model_dump()
    assert record.members == {axis: (f"{axis}-0000.safetensors",) for axis in AXES}
    choice = choice_of(experiment)
    assert (choice["method"], choice["patients"], choice["cases"]) == ("guard", 2, 2)
    assert choice["start"] == choice["chosen"]
    assert not any(step["taken"] for step in choice["steps"])
    assert all(step["p"] >= 0.25 and step["tried"] > 0 for step in choice["steps"])
    assert {step["name"] for step in choice["steps"]} <= STEPS
    assert choice["candidates"]["axial"] == ["axial-0000", "axial-0001"]
    assert "flatter" in choice["caveat"] and "k-fold" not in choice["caveat"]


def test_the_best_choice_is_promoted_with_its_rule_and_opens_as_an_ensemble(
    searched: Searched, launch: Callable[..., Any]
) -> None:
    experiment = searched(folds=(0, 1), k_fold=True, ensemble=", choose: best")
    outcome = launch_promote(launch, experiment)
    assert outcome.code == 0, outcome.err
    choice = choice_of(experiment)
    record = read_ensemble_record(experiment.ensemble_folder / RECORD_NAME)
    assert record.rule.model_dump(mode="json") == choice["chosen"]["rule"]
    # Every chosen trial brings the members of both folds.
    assert {axis: list(names) for axis, names in record.members.items()} == {
        axis: [f"{name}-fold{fold}.safetensors" for name in names for fold in (0, 1)]
        for axis, names in choice["chosen"]["members"].items()
    }
    # Step by step: each starts where the one before it left off.
    dice = choice["dice_start"]
    for step in choice["steps"]:
        assert step["dice_before"] == pytest.approx(dice)
        assert step["gain"] == pytest.approx(step["dice_after"] - step["dice_before"])
        assert step["taken"] is (step["gain"] > 0)
        dice = step["dice_after"] if step["taken"] else dice
    assert choice["dice_chosen"] == pytest.approx(dice)
    assert choice["left_out"]["dice_start"] == pytest.approx(choice["dice_start"])
    assert "k-fold" in choice["caveat"]
    predictors = load_ensemble(experiment.ensemble_folder).predictors
    assert len(predictors) == sum(map(len, record.members.values()))


def test_promoting_again_gives_the_same_ensemble(
    searched: Searched, launch: Callable[..., Any]
) -> None:
    experiment = searched(ensemble=", choose: best")
    texts = []
    for _ in range(2):
        assert launch_promote(launch, experiment).code == 0
        texts.append(
            [
                (experiment.ensemble_folder / RECORD_NAME).read_text(),
                experiment.choice_json.read_text(),
            ]
        )
    assert texts[0] == texts[1]


def test_vote_computes_no_predictions(searched: Searched, launch: Callable[..., Any]) -> None:
    experiment = searched(ensemble=", choose: vote, members_per_axis: 2, threshold: 0.4")
    outcome = launch_promote(launch, experiment)
    assert outcome.code == 0, outcome.err
    assert "Nothing was chosen: ensemble.choose is vote" in outcome.out
    assert not experiment.candidates_folder.exists()
    record = read_ensemble_record(experiment.ensemble_folder / RECORD_NAME)
    assert record.rule.threshold == 0.4
    assert [len(names) for names in record.members.values()] == [2, 2, 2]
    assert choice_of(experiment)["steps"] == []


def test_a_candidate_without_weights_is_reported_and_left_out(
    searched: Searched, launch: Callable[..., Any]
) -> None:
    experiment = searched()
    shutil.rmtree(trial_weights(experiment.trials_folder("coronal"), 1).parent)
    outcome = launch_promote(launch, experiment)
    assert outcome.code == 0, outcome.err
    assert "their weights are gone: coronal trial 1" in outcome.out
    assert choice_of(experiment)["candidates"]["coronal"] == ["coronal-0000"]


def test_a_start_without_weights_is_an_error(
    searched: Searched, launch: Callable[..., Any]
) -> None:
    experiment = searched()
    shutil.rmtree(trial_weights(experiment.trials_folder("coronal"), 0).parent)
    outcome = launch_promote(launch, experiment)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "the weights of this trial are gone" in line and "coronal" in line
    assert not experiment.ensemble_folder.exists()
