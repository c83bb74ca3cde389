"""Configuration: defaults that stand, and every fault in one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strokeseg.errors import UserError
from strokeseg.records.config import DataConfig, ExperimentConfig, TrialConfig, load_experiment
from strokeseg.records.record import parse_record
from strokeseg.storage.yaml_file import load_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def fault_of(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_record(ExperimentConfig, values, "here.yaml")
    message = str(caught.value)
    assert message.startswith("here.yaml: ") and "\n" not in message
    return message


def test_a_source_of_data_is_all_that_an_experiment_must_say(tmp_path: Path) -> None:
    config = load_experiment(written(tmp_path, "data: {path: cases}\n"))
    assert config.data.sequences == ("T1", "T2", "DWI", "FLAIR")
    assert (config.splits.folds, config.splits.validation_fold) == (5, 0)
    assert config.search.space == "../../search_spaces/{axis}.yaml"
    assert config.ensemble.members_per_axis == 1


def test_a_configuration_reads_back_from_its_own_plain_values(tmp_path: Path) -> None:
    text = """
data: {layout: manifest, path: cases.csv, sequences: [FLAIR, T1c], lesion_labels: [1, 4]}
splits: {folds: 3, validation_fold: 2, test_patients: ["17", "18"]}
preparation: {spacing_mm: [1, 1, 3], slice_size: [64, 96], reference: FLAIR}
"""
    config = load_experiment(written(tmp_path, text))
    assert config.data.lesion_labels == (1, 4)
    assert config.preparation.spacing_mm == (1.0, 1.0, 3.0)
    again = parse_record(ExperimentConfig, config.model_dump(mode="json"), "again")
    assert again == config


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = """
data: {path: cases, sequnces: [T1]}
splits: {folds: 1}
search: {trials: none, reduction_factor: 2.5}
ensemble: {threshold: 1}
epochs: 3
"""
    with pytest.raises(UserError) as caught:
        load_experiment(written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / "experiment.yaml") in message
    for fault in (
        "unknown key data.sequnces",
        "splits.folds: Input should be greater than or equal to 2, got 1",
        "search.trials:",
        "search.reduction_factor:",
        "ensemble.threshold:",
        "unknown key epochs",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, "data: Field required"),
        ({"data": {}}, "give either path or phantom"),
        ({"data": {"path": "a", "phantom": {}}}, "only one of them"),
        ({"data": {"phantom": {}, "layout": "manifest"}}, "siss layout"),
        ({"data": {"path": "a", "sequences": ["T1", "T1"]}}, "sequences must differ"),
        ({"data": {"path": "a", "sequences": []}}, "data.sequences"),
        ({"data": {"path": "a", "layout": "dicom"}}, "data.layout"),
        ({"data": {"phantom": {"spacing_mm": 0}}}, "data.phantom.spacing_mm"),
        ({"data": {"phantom": {"cases": 0}}}, "data.phantom.cases"),
        ({"data": {"path": "a"}, "splits": {"validation_fold": -1}}, "splits.validation_fold"),
        ({"data": {"path": "a"}, "splits": {"test_share": 1}}, "splits.test_share"),
        (
            {"data": {"path": "a"}, "preparation": {"slice_size": [64, 65]}},
            "multiple of 32, got 65",
        ),
        (
            {"data": {"path": "a"}, "preparation": {"spacing_mm": [1, 1]}},
            "preparation.spacing_mm",
        ),
        (
            {"data": {"path": "a"}, "preparation": {"reference": "PD"}},
            "preparation.reference must be one of ['T1', 'T2', 'DWI', 'FLAIR'], got 'PD'",
        ),
        ({"data": {"path": "a"}, "search": {"trials": 0}}, "search.trials"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict[str, Any], fault: str) -> None:
    assert fault in fault_of(values)


@pytest.mark.parametrize(
    "text", ["splits: {folds: [}", "\tdata: 1", "- data", "", "just words", "a: b: c"]
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "binary.yaml", "."):
        with pytest.raises(UserError, match="check the path|no valid YAML"):
            load_yaml(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: &a {path: x}", 1),
        ("data:\n  path: x\nsplits: *a\n", 3),
        ("data: &a [*a]", 1),
        ("l0: &l0 {a: 1}\nl1:\n  <<: [*l0, *l0]\n", 1),
    ],
)
def test_an_anchor_or_alias_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert str(caught.value) == (
        f"{path}, line {line}: must not have an anchor (&) or an alias (*); write the values out"
    )


def test_a_star_or_ampersand_inside_a_value_is_no_alias(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "data: {path: a*b, name: '&c'}")) == {
        "data": {"path": "a*b", "name": "&c"}
    }


@pytest.mark.parametrize(
    "text",
    [
        *(
            "data: !!bool x",
            "data: !!int ''",
            "data: !!timestamp x",
            "data: !!python/name:os.system",
        ),
        *("".join(f"{' ' * depth}a:\n" for depth in range(600)), "# " + "x" * 300_000),
    ],
)
def test_yaml_that_was_built_to_do_harm_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=str(path)) as caught:
        load_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_key_with_a_line_break_and_a_long_value_stay_on_one_short_line() -> None:
    fault = fault_of({"data": {"path": "a"}, "a\nb\x1b[2J": 1, "splits": "x" * 10_000})
    assert fault.isprintable() and len(fault) < 1000


@pytest.mark.parametrize(
    ("weights", "allowed"),
    [
        ((1.0, 0.0, 0.0), False),
        ((0.0, 0.0, 0.0), False),
        ((1.0, 0.01, 0.0), True),
        ((1.0, 0.0, 0.01), True),
        ((0.0, 1.0, 0.0), True),
    ],
)
def test_dice_is_never_the_only_loss(weights: tuple[float, float, float], allowed: bool) -> None:
    names = ("dice_weight", "cross_entropy_weight", "focal_weight")
    values = dict(zip(names, weights, strict=True))
    if allowed:
        assert TrialConfig.model_validate(values).dice_weight == weights[0]
    else:
        with pytest.raises(ValidationError, match="pure Dice"):
            TrialConfig.model_validate(values)


@pytest.mark.parametrize(
    "value",
    [
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"learning_rate": float("nan")},
        {"weight_decay": -1e-9},
        {"encoder_depth": 2},
        {"encoder_depth": 6},
        {"batch_size": 0},
        {"augmentation": 1.01},
        {"lesion_fraction": -0.01},
        {"dropout": 0.5},
    ],
)
def test_a_trial_outside_its_ranges_is_refused(value: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrialConfig.model_validate(value)


def test_records_do_not_change() -> None:
    data = DataConfig(path="cases")
    with pytest.raises(ValidationError, match="frozen"):
        data.path = "others"  # type: ignore[misc]
