"""The search space: what YAML may hold, what a point of it is, and every fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from strokeseg.errors import UserError
from strokeseg.records.config import TrialConfig
from strokeseg.training.encoders import check_encoders
from strokeseg.tuning.space import Dimension, Space, enqueue_first, plain
from strokeseg.tuning.space_file import load_space

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "search_spaces").glob("*.yaml"))
# Every space here names an encoder that is quick to build, since all of them are built.
ENCODER = "  encoder: {value: resnet18}\n"


def written(folder: Path, text: str, name: str = "space.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def space_of(folder: Path, parameters: str, first: str = "[]") -> Space:
    return load_space(written(folder, f"first: {first}\nparameters:\n{ENCODER}{parameters}"))


def study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


def points(space: Space, count: int) -> list[TrialConfig]:
    asked = study()
    enqueue_first(asked, space)
    return [space.ask(asked.ask()) for _ in range(count)]


def fault_of(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(UserError) as caught:
        check_encoders(load_space(path).wanted_encoders(path, 4, None))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_point_of_a_shipped_space_is_a_trial(
    path: Path, shipped_space: Callable[[Path], Space]
) -> None:
    space = shipped_space(path)
    drawn = points(space, 200)
    for point in drawn:
        assert TrialConfig.model_validate(plain(point)) == point
    for name, dimension in space.dimensions.items():
        if dimension.value is None:
            assert len({plain(point)[name] for point in drawn}) > 1, name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_first_points_of_a_shipped_space_are_tried_as_they_stand(
    path: Path, shipped_space: Callable[[Path], Space]
) -> None:
    space = shipped_space(path)
    assert space.first
    tried = points(space, len(space.first))
    for wanted, point in zip(space.first, tried, strict=True):
        assert wanted.items() <= plain(point).items()
    # The first of them is the same whatever the seed, since nothing of it is left to chance.
    assert space.default_point().items() <= plain(tried[0]).items()


def test_a_range_is_sampled_between_its_ends_by_its_kind(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """\
  learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
  lesion_fraction: {low: 0.25, high: 0.75}
  encoder_depth: {low: 3, high: 5}
""",
    )
    trial = study().ask()
    point = space.ask(trial)
    assert trial.distributions == {
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "lesion_fraction": FloatDistribution(0.25, 0.75),
        "encoder_depth": IntDistribution(3, 5),
    }
    assert isinstance(point.encoder_depth, int)
    drawn = points(space, 60)
    assert {point.encoder_depth for point in drawn} == {3, 4, 5}
    assert all(1e-4 <= point.learning_rate <= 1e-2 for point in drawn)
    assert all(0.25 <= point.lesion_fraction <= 0.75 for point in drawn)


def test_choices_are_all_drawn_and_a_value_is_never_asked_for(tmp_path: Path) -> None:
    space = space_of(tmp_path, "  batch_size: {choices: [8, 16]}\n  encoder_depth: {value: 3}\n")
    drawn = points(space, 30)
    assert {point.batch_size for point in drawn} == {8, 16}
    assert {(point.encoder, point.encoder_depth) for point in drawn} == {("resnet18", 3)}
    trial = study().ask()
    space.ask(trial)
    assert trial.params.keys() == {"batch_size"}


def test_what_the_space_leaves_out_has_the_default(tmp_path: Path) -> None:
    (point,) = points(space_of(tmp_path, ""), 1)
    assert point == TrialConfig(encoder="resnet18")


def test_a_condition_decides_whether_a_parameter_is_asked_for(tmp_path: Path) -> None:
    # Named before what it depends on: the order of the file does not matter.
    space = space_of(
        tmp_path,
        """\
  focal_weight: {low: 0.5, high: 1.0, when: {batch_size: [8]}, otherwise: 0.25}
  weight_decay: {low: 0.1, high: 0.2, when: {batch_size: [16]}}
  batch_size: {choices: [8, 16]}
""",
    )
    default = TrialConfig.model_fields["weight_decay"].default
    drawn = points(space, 40)
    assert {point.batch_size for point in drawn} == {8, 16}
    for point in drawn:
        if point.batch_size == 8:
            assert point.focal_weight >= 0.5 and point.weight_decay == default
        else:
            assert point.focal_weight == 0.25 and point.weight_decay >= 0.1


def test_conditions_may_build_on_each_other(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """\
  augmentation: {low: 0.9, high: 1.0, when: {lesion_fraction: [0.3]}, otherwise: 0.0}
  lesion_fraction: {choices: [0.3, 0.4], when: {batch_size: [8]}, otherwise: 0.7}
  batch_size: {choices: [8, 16]}
""",
    )
    kinds = {
        (point.batch_size, point.lesion_fraction, point.augmentation >= 0.9)
        for point in points(space, 60)
    }
    assert kinds == {(8, 0.3, True), (8, 0.4, False), (16, 0.7, False)}


def test_a_base_is_overridden_parameter_by_parameter(tmp_path: Path) -> None:
    written(
        tmp_path,
        f"first: [{{batch_size: 8}}]\nparameters:\n{ENCODER}"
        "  batch_size: {choices: [8, 16]}\n  focal_weight: {value: 0.5}\n"
        "  lesion_fraction: {value: 0.3}\n",
        "base.yaml",
    )
    text = (
        "base: base.yaml\nparameters:\n  batch_size: {choices: [8, 32]}\n"
        "  lesion_fraction: null\n  augmentation: {value: 0.1}\n"
    )
    space = load_space(written(tmp_path, text))
    assert space.dimensions["batch_size"].choices == (8, 32)
    assert space.dimensions["focal_weight"].value == 0.5
    assert space.dimensions["augmentation"].value == 0.1
    # Taken out of the space by its heir, it has the default again.
    assert "lesion_fraction" not in space.dimensions
    assert space.first == ({"batch_size": 8},)
    heir = load_space(written(tmp_path, text + "first: [{batch_size: 32}]\n"))
    assert heir.first == ({"batch_size": 32},)


def test_a_base_has_no_base(tmp_path: Path) -> None:
    written(tmp_path, "parameters: {}\n", "c.yaml")
    written(tmp_path, "base: c.yaml\n", "b.yaml")
    with pytest.raises(UserError, match=r"b\.yaml: a base space must not have a base"):
        load_space(written(tmp_path, "base: b.yaml\n"))


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read"):
        load_space(written(tmp_path, "base: nowhere.yaml\n"))


def test_first_points_come_first(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "  batch_size: {choices: [8, 16]}\n  lesion_fraction: {low: 0.1, high: 0.9}\n",
        "[{batch_size: 16, lesion_fraction: 0.5}, {batch_size: 8}]",
    )
    asked = study()
    enqueue_first(asked, space)
    drawn = [space.ask(asked.ask()) for _ in range(3)]
    assert (drawn[0].batch_size, drawn[0].lesion_fraction) == (16, 0.5)
    # What a first point leaves out is sampled.
    assert drawn[1].batch_size == 8 and drawn[1].lesion_fraction != 0.5
    assert [trial.system_attrs.get("fixed_params") is not None for trial in asked.trials] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        (
            "learning_rat: {value: 1}",
            "unknown parameter learning_rat; known are encoder, encoder_depth, learning_rate",
        ),
        ("encoder: {value: resnet19}", "did you mean resnet18"),
        ("encoder: {choices: [resnet18, resnet81]}", "encoder 'resnet81'"),
        ("learning_rate: {min: 1.0e-4}", "unknown key parameters.learning_rate.min"),
        ("learning_rate: {low: 1.0e-2, high: 1.0e-4}", "low must not be above high"),
        ("learning_rate: {low: 1.0e-4}", "low must not be above high"),
        ("learning_rate: {low: 0, high: 1.0e-2, log: true}", "log needs a range with low above 0"),
        ("batch_size: {choices: [8], log: true}", "log needs a range with low above 0"),
        ("learning_rate: {low: 0, high: 1.0e-2}", "learning_rate: Input should be greater than 0"),
        ("learning_rate: {low: 1.0e-4, high: .inf}", "learning_rate"),
        ("batch_size: {}", "give low and high, or choices, or value"),
        ("batch_size: {choices: [8], value: 8}", "give low and high, or choices, or value"),
        ("batch_size: {choices: []}", "batch_size.choices"),
        ("batch_size: {choices: [8, many]}", "batch_size"),
        ("encoder_depth: {low: 2, high: 5}", "encoder_depth"),
        ("encoder_depth: {low: 3, high: 4.5}", "encoder_depth"),
        ("batch_size: {choices: [8, 0]}", "got 0"),
        ("augmentation: {low: 0, high: 2}", "augmentation"),
        ("batch_size: {value: 8, when: {dropout: [1]}}", "`when` must name other parameters"),
        ("batch_size: {value: 8, when: {batch_size: [8]}}", "without a circle"),
        (
            "batch_size: {value: 8, when: {augmentation: [1]}}\n"
            "  augmentation: {value: 1, when: {batch_size: [8]}}",
            "batch_size on ['augmentation'], augmentation on ['batch_size']",
        ),
        (
            "batch_size: {choices: [8, 16]}\n  augmentation: {value: 1, when: {batch_size: [9]}}",
            "augmentation: `when` lists [9], which batch_size never takes",
        ),
        ("augmentation: {low: 0, high: 1, otherwise: 7}", "augmentation"),
        # Pure Dice at some point: both other weights can be 0 together.
        ("cross_entropy_weight: {low: 0, high: 1}", "pure Dice"),
        (
            "cross_entropy_weight: {choices: [1, 0]}\n  focal_weight: {low: 0, high: 1}",
            "pure Dice",
        ),
        ("cross_entropy_weight: {value: 0}", "pure Dice"),
    ],
)
def test_what_a_trial_could_not_be_is_refused_before_the_first(
    tmp_path: Path, parameters: str, fault: str
) -> None:
    encoder = "" if parameters.startswith("encoder:") else ENCODER
    assert fault in fault_of(tmp_path, f"parameters:\n{encoder}  {parameters}\n")


@pytest.mark.parametrize(
    "parameters",
    [
        # The third weight never reaches 0, so that the other may.
        "cross_entropy_weight: {low: 0, high: 1}\n  focal_weight: {low: 0.1, high: 1}",
        "cross_entropy_weight: {low: 0.1, high: 1}\n  focal_weight: {low: 0, high: 1}",
        "cross_entropy_weight: {value: 0}\n  focal_weight: {value: 1}",
        "dice_weight: {value: 0}",
    ],
)
def test_a_loss_weight_may_be_zero_beside_another(tmp_path: Path, parameters: str) -> None:
    assert len(points(space_of(tmp_path, f"  {parameters}\n"), 20)) == 20


@pytest.mark.parametrize(
    "parameters",
    [
        # Where the condition fails, `otherwise` or the default (0 for focal) holds.
        "cross_entropy_weight: {low: 0.1, high: 1, when: {batch_size: [8]}, otherwise: 0}",
        "cross_entropy_weight: {low: 0, high: 1}\n"
        "  focal_weight: {low: 0.1, high: 1, when: {batch_size: [8]}}",
    ],
)
def test_pure_dice_behind_a_condition_is_found_too(tmp_path: Path, parameters: str) -> None:
    text = f"parameters:\n{ENCODER}  batch_size: {{choices: [8, 16]}}\n  {parameters}\n"
    assert "pure Dice" in fault_of(tmp_path, text)


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ("[{batch_size: 64}]", "first.0: batch_size cannot be 64"),
        ("[{batch_size: 8}, {lesion_fraction: 0.95}]", "first.1: lesion_fraction cannot be 0.95"),
        ("[{dropout: 0.5}]", "first.0: dropout is no parameter of the space"),
        ("[{lesion_fraction: true}]", "first.0: lesion_fraction cannot be True"),
        ("[{encoder_depth: 3.5}]", "first.0: encoder_depth cannot be 3.5"),
        ("{batch_size: 8}", "first"),
    ],
)
def test_a_first_point_outside_the_space_is_refused(tmp_path: Path, first: str, fault: str) -> None:
    text = f"""\
first: {first}
parameters:
{ENCODER}  batch_size: {{choices: [8, 16]}}
  encoder_depth: {{low: 3, high: 5}}
  lesion_fraction: {{low: 0.1, high: 0.9}}
"""
    assert fault in fault_of(tmp_path, text)


def test_several_faults_are_one_line(tmp_path: Path) -> None:
    text = """\
first: [{batch_size: 64}]
parameters:
  dropuot: {value: 1}
  batch_size: {choices: [8, -1]}
"""
    message = fault_of(tmp_path, text)
    for fault in ("unknown parameter dropuot", "batch_size", "first.0"):
        assert fault in message


def test_several_wrong_encoders_are_one_line(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "parameters: {encoder: {choices: [resnt18, resnt34]}}")
    assert "did you mean resnet18" in message and "did you mean resnet34" in message


@pytest.mark.parametrize(
    ("parameters", "encoders"),
    [
        ({"pretrained": {"choices": (True, False)}}, ("a", "b")),
        ({"pretrained": {"value": True}}, ("a", "b")),
        ({"pretrained": {"choices": (True, False), "when": {"encoder": ("b",)}}}, ("b",)),
        ({"pretrained": {"value": False}}, ()),
        ({}, ()),
        # Elsewhere than `when` says, the parameter takes `otherwise`.
        (
            {"pretrained": {"value": False, "when": {"encoder": ("b",)}, "otherwise": True}},
            ("a",),
        ),
        (
            {
                "pretrained": {"value": True, "when": {"batch_size": (8,)}},
                "batch_size": {"value": 8},
            },
            ("a", "b"),
        ),
    ],
)
def test_encoders_that_need_weights_are_those_of_pretrained_points(
    parameters: dict[str, dict[str, Any]], encoders: tuple[str, ...]
) -> None:
    dimensions = {
        name: Dimension.model_validate(values)
        for name, values in {"encoder": {"choices": ("a", "b")}, **parameters}.items()
    }
    assert Space(dimensions=dimensions, first=()).pretrained_encoders() == encoders


def test_the_default_is_the_first_point_completed_by_what_is_usual(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """\
  learning_rate: {low: 1.0e-5, high: 1.0e-1, log: true}
  weight_decay: {low: 0.5, high: 2.0, log: true}
  encoder_depth: {low: 3, high: 4}
  batch_size: {choices: [4, 8]}
  augmentation: {value: 0.25}
  lesion_fraction: {low: 0.5, high: 1.0, when: {batch_size: [8]}}
""",
        first="[{learning_rate: 0.02}]",
    )
    assert space.default_point() == {
        "learning_rate": 0.02,
        # TrialConfig's 1e-4, 5 and 16 are no points here: the middle of the range, in
        # logarithms the square root of 0.5 * 2; 3.5, which rounds to the even 4; the first.
        "weight_decay": 1.0,
        "encoder_depth": 4,
        "batch_size": 4,
    }
    (point,) = points(space, 1)
    assert (point.learning_rate, point.batch_size, point.augmentation) == (0.02, 4, 0.25)


def test_a_space_without_first_points_has_a_default_all_the_same(tmp_path: Path) -> None:
    space = space_of(tmp_path, "  batch_size: {choices: [8, 16]}\n")
    assert space.default_point() == {"batch_size": 16}


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ({}, {"batch_size": 16}),
        ({"batch_size": 8}, {"batch_size": 8, "focal_weight": 0.25}),
        # Out of the range, not a choice, not what the space fixes, not a parameter of it.
        ({"batch_size": 8, "focal_weight": 0.75}, None),
        ({"batch_size": 32}, None),
        ({"encoder": "resnet34"}, None),
        ({"learning_rate": 0.5}, None),
        # Where it does not vary it has a value of its own.
        ({"focal_weight": 0.25}, None),
    ],
)
def test_a_configuration_is_a_point_of_a_space_or_not(
    tmp_path: Path, change: dict[str, Any], parameters: dict[str, Any] | None
) -> None:
    space = space_of(
        tmp_path,
        "  batch_size: {choices: [8, 16]}\n"
        "  focal_weight: {low: 0.0, high: 0.5, when: {batch_size: [8]}, otherwise: 0.125}\n",
    )
    usual = {"encoder": "resnet18", "batch_size": 16}
    given = {"focal_weight": 0.25 if change.get("batch_size") == 8 else 0.125}
    config = TrialConfig.model_validate({**usual, **given, **change})
    assert space.parameters_of(config) == parameters
    if parameters is not None:
        asked = study()
        asked.enqueue_trial(parameters)
        assert space.ask(asked.ask()) == config
        assert space.distributions_of(parameters).keys() == parameters.keys()
