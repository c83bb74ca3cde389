"""The model card says what was measured, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strokeseg.exporting.model_card import model_card
from strokeseg.imaging.cases import Case
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import Preparation


@pytest.fixture
def experiment() -> Experiment:
    config = ExperimentConfig.model_validate({"data": {"phantom": {"cases": 6}}})
    place = Path("toy")
    return Experiment(name="toy", config=config, config_path=place, folder=place, data_path=place)


@pytest.fixture
def ensemble() -> EnsembleRecord:
    return EnsembleRecord.model_validate(
        {
            "name": "toy",
            "sequences": ("DWI", "FLAIR"),
            "spacing_mm": (2, 2, 4),
            "rule": {"between": "soft", "threshold": 0.4, "smallest_lesion_mm3": 30},
            "members": {"axial": ("axial-0003.safetensors",)},
            "preparation_hash": "a" * 64,
            "code_version": "1.2",
        }
    )


@pytest.fixture
def preparation() -> Preparation:
    subsets = {"p1": "0", "p2": "1", "p3": "test"}
    cases = {
        f"{patient}-{number}": Case(
            name=f"{patient}-{number}", patient=patient, images={}, mask=None, fold=subset
        )
        for patient, subset in subsets.items()
        for number in (1, 2)
    }
    return Preparation(
        cases=cases,
        lesion_ml={},
        spacing_mm=(2, 2, 4),
        fingerprint="a" * 64,
        splits_hash="b" * 64,
    )


@pytest.fixture
def make_card(
    experiment: Experiment, ensemble: EnsembleRecord, preparation: Preparation
) -> Callable[..., str]:
    """Make the card of the toy experiment: with nothing scored or chosen unless given."""

    def make(**changes: Any) -> str:
        given = {"experiment": experiment, "summary": None, "choice": None, **changes}
        return model_card(ensemble=ensemble, preparation=preparation, parity="Alike.", **given)

    return make


def _summary(on: str) -> dict[str, Any]:
    dice = {"mean": 0.61, "median": 0.6, "q1": 0.5, "q3": 0.7, "low": 0.55, "high": 0.66}
    dice = {**dice, "cases": 2}
    unknown = {**dict.fromkeys(dice), "cases": 0}
    vote = {"kind": "vote", "cases": 2, "metrics": {"dice": dice, "hd95_mm": unknown}}
    size = {"low_ml": 50.0, "high_ml": None, "cases": 2, "methods": {"vote": {"dice": dice}}}
    return {
        "on": on,
        "caution": None,
        "policy": "isles22",
        "cases": 2,
        "patients": 1,
        "failed": {},
        "baselines_failed": {},
        "bootstrap": {"samples": 2000, "seed": 0, "confidence": 0.95},
        "methods": {"vote": vote},
        "by_size": [size],
    }


def test_the_card_gives_the_scores_with_their_intervals_and_by_size(
    make_card: Callable[..., str],
) -> None:
    card = make_card(summary=_summary("test"))
    assert "| Dice | 0.610 | 0.550 to 0.660 | 0.600 | 2 |" in card
    assert "| HD95, mm | - | - | - | 0 |" in card
    assert "| above 50 | 2 | 0.610 | 0.550 to 0.660 |" in card
    assert "that no training and no choice has seen" in card
    assert "flatter" not in card and "Caution" not in card
    assert "intervals over so few as 1 patient are too narrow" in card


def test_a_size_of_which_only_a_baseline_has_masks_is_left_out(
    make_card: Callable[..., str],
) -> None:
    summary = _summary("test")
    (large,) = summary["by_size"]
    small = {"low_ml": 0.0, "high_ml": 50.0, "cases": 1, "methods": {"nnU-Net": {"dice": {}}}}
    card = make_card(summary={**summary, "by_size": [small, large]})
    assert "| above 50 | 2 |" in card
    assert "0 to 50" not in card


def test_the_card_tells_the_data_the_members_and_the_rule(
    ensemble: EnsembleRecord, make_card: Callable[..., str]
) -> None:
    card = make_card()
    assert "- 4 simulated cases of 2 patients trained and chose it; 2 more were locked" in card
    assert "Its data were simulated" in card
    assert "    pip install '.[predict]'\n" in card
    assert "verify_metadata --meta_file configs/metadata.json --filepath configs/metadata.s" in card
    assert "- axial: axial-0003\n" in card
    assert f"- how it votes: {ensemble.rule.in_words()}\n" in card
    assert f"splits `{'b' * 16}`" in card
    assert "That was not measured before it was exported." in card
    assert "Alike." in card


def test_data_that_came_simulated_are_described_as_such_and_others_are_not(
    experiment: Experiment, make_card: Callable[..., str]
) -> None:
    for simulated in (True, False):
        config = ExperimentConfig.model_validate({"data": {"path": ".", "simulated": simulated}})
        card = make_card(experiment=replace(experiment, config=config))
        assert ("Its data were simulated" in card) == simulated
        assert ("4 simulated cases" in card) == simulated


def test_the_card_gives_each_step_of_the_choice_and_its_caveat(
    make_card: Callable[..., str],
) -> None:
    step = {"name": "soft", "best": "soft vote", "dice_before": 0.5, "dice_after": 0.6}
    choice = {
        "method": "guard",
        "patients": 7,
        "steps": [{**step, "tried": 2, "gain": 0.1, "p": 0.01, "taken": True}],
        "caveat": "They flatter.",
    }
    card = make_card(choice=choice)
    assert "By `guard`, on 7 validation patients." in card
    assert "| soft | 2 | soft vote | 0.500 | 0.600 | +0.100 | 0.010 | yes |" in card
    assert "They flatter." in card


def test_scores_of_those_that_chose_are_said_to_flatter(make_card: Callable[..., str]) -> None:
    summary = {**_summary("validation"), "caution": "Every fold chose the trials"}
    card = make_card(summary=summary)
    assert "How well it does on validation cases" in card
    assert "these scores flatter it" in card
    assert "Caution: Every fold chose the trials." in card


def test_the_card_counts_what_was_scored_and_tells_neither_baselines_nor_paths(
    make_card: Callable[..., str],
) -> None:
    summary = _summary("test")
    summary["methods"]["vote"]["cases"] = 1
    summary["failed"] = {"p3-1": "/home/someone/p3-1/mask.nii.gz: no such file"}
    summary["baselines_failed"] = {
        f"p3-{number} (nnU-Net)": "/home/someone/masks: no mask" for number in (1, 2)
    }
    card = make_card(summary=summary)
    assert "Means over 1 case of 1 patient " in card
    assert "Could not be scored, and in no mean: 1 case." in card
    assert "p3-1" not in card
    assert "nnU-Net" not in card and "/home" not in card
