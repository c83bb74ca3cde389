"""The search space: a YAML file in, Optuna's questions out.

A *space* names the parameters of a trial that may vary. A *dimension* is one of them: a
range (`low`, `high`), a list of `choices`, or one fixed `value`. A dimension with `when`
exists only where another parameter has one of the values listed; elsewhere the parameter
takes `otherwise`, or the default of `TrialConfig`. A *first point* is tried before the
sampler proposes any of its own; the first of them is the *default*, what most would train,
against which every study states its gain.

A space may name a `base` file, whose parameters it overrides one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, ValidationError, model_validator

from strokeseg.config import Record, TrialConfig, load_yaml, parse_record
from strokeseg.errors import UserError
from strokeseg.leaderboard import DEFAULT, FIRST_POINT
from strokeseg.learning.networks import check_encoder

Value: TypeAlias = bool | int | float | str

# The note in the journal that says where a trial's configuration came from.
ORIGIN = "origin"


class Dimension(Record):
    """What values one parameter may take; see the module's docstring."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Value, ...] | None = Field(default=None, min_length=1)
    value: Value | None = None
    when: dict[str, tuple[Value, ...]] = {}
    otherwise: Value | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        ranged = self.low is not None or self.high is not None
        if ranged + (self.choices is not None) + (self.value is not None) != 1:
            raise ValueError("give low and high, or choices, or value")
        if ranged and (self.low is None or self.high is None or self.low > self.high):
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("log needs a range with low above 0")
        return self

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values at the dimension's ends, or all of its choices."""
        if self.low is not None and self.high is not None:
            return (self.low, self.high)
        return self.choices if self.choices is not None else (_given(self.value),)

    def holds(self, value: Value) -> bool:
        """Whether the dimension can take a value."""
        if self.low is not None and self.high is not None:
            return not isinstance(value, (bool, str)) and self.low <= value <= self.high
        return value in self.extremes


class _SpaceFile(Record):
    base: str | None = None
    parameters: dict[str, Dimension | None] = {}
    first: tuple[dict[str, Value], ...] = ()


class Space(Record):
    """A checked search space.

    Attributes:
        dimensions: By parameter, in an order in which every `when` refers to earlier ones.
        first: Points to try first; parameters that they leave out are sampled.
    """

    dimensions: dict[str, Dimension]
    first: tuple[dict[str, Value], ...]

    def ask(self, trial: optuna.trial.BaseTrial) -> TrialConfig:
        """Let a trial of Optuna choose a point."""
        point: dict[str, Value] = {}
        for name, dimension in self.dimensions.items():
            if _exists(dimension, point):
                point[name] = _suggest(trial, name, dimension)
            else:
                point[name] = _elsewhere(name, dimension)
        return TrialConfig.model_validate(point)

    def default_point(self) -> dict[str, Value]:
        """Return the point that every study tries first and is measured against.

        It is the first of the first points, completed by the defaults of `TrialConfig`, and
        where the space does not hold these by the first choice or the middle of the range.
        """
        given = self.first[0] if self.first else {}
        point: dict[str, Value] = {}
        for name, dimension in self.dimensions.items():
            if not _exists(dimension, point):
                point[name] = _elsewhere(name, dimension)
                continue
            default = TrialConfig.model_fields[name].default
            usual = default if dimension.holds(default) else _middle(name, dimension)
            point[name] = given.get(name, usual)
        return {
            name: value
            for name, value in point.items()
            if _exists(self.dimensions[name], point) and self.dimensions[name].value is None
        }

    def parameters_of(self, config: TrialConfig) -> dict[str, Value] | None:
        """Return what this space would have to propose for a configuration, or nothing.

        Nothing means that the configuration is no point of this space.
        """
        wanted = plain(config)
        for name, field in TrialConfig.model_fields.items():
            if name not in self.dimensions and wanted[name] != field.default:
                return None
        parameters: dict[str, Value] = {}
        for name, dimension in self.dimensions.items():
            if not _exists(dimension, wanted):
                if wanted[name] != _elsewhere(name, dimension):
                    return None
            elif not dimension.holds(wanted[name]):
                return None
            elif dimension.value is None:
                parameters[name] = wanted[name]
        return parameters

    def distributions_of(self, parameters: Mapping[str, Value]) -> dict[str, BaseDistribution]:
        """Return the distributions that some parameters of this space are drawn from."""
        return {name: _distribution(name, self.dimensions[name]) for name in parameters}

    def pretrained_encoders(self) -> tuple[str, ...]:
        """Encoders that some point of the space wants with pretrained weights."""
        dimension = self.dimensions.get("pretrained")
        if dimension is None:
            return ()
        inside = {e for e in self.encoders() if e in dimension.when.get("encoder", (e,))}
        # A condition on anything else may fail for every encoder.
        outside = set(self.encoders()) - (inside if dimension.when.keys() == {"encoder"} else set())
        wanted = inside if True in dimension.extremes else set()
        if dimension.when and dimension.otherwise is True:
            wanted = wanted | outside
        return tuple(encoder for encoder in self.encoders() if encoder in wanted)

    def encoders(self) -> tuple[str, ...]:
        """All encoders in the space."""
        dimension = self.dimensions.get("encoder")
        default = TrialConfig.model_fields["encoder"].default
        return (default,) if dimension is None else tuple(map(str, dimension.extremes))


def load_space(path: Path, channels: int) -> Space:
    """Read a search space, its base included, and check it against what a trial can be.

    Args:
        path: The YAML file.
        channels: Number of sequences, which every encoder must take.

    Raises:
        UserError: With every fault at once: unknown keys or parameters, values that a
            trial refuses, unknown encoders, conditions on what comes later or not at all.
    """
    file = parse_record(_SpaceFile, load_yaml(path), str(path))
    parameters: dict[str, Dimension | None] = {}
    first = file.first
    if file.base is not None:
        base_path = path.parent / file.base
        base = parse_record(_SpaceFile, load_yaml(base_path), str(base_path))
        if base.base is not None:
            raise UserError(f"{base_path}: a base space must not have a base itself")
        parameters.update(base.parameters)
        first = first or base.first
    parameters.update(file.parameters)
    dimensions = {name: dimension for name, dimension in parameters.items() if dimension}
    space = Space(dimensions=_ordered(dimensions, path), first=first)
    faults = [*_wrong_values(space), *_wrong_encoders(space, channels), *_wrong_first(space)]
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    return space


def _ordered(dimensions: Mapping[str, Dimension], path: Path) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}
    waiting = dict(dimensions)
    while waiting:
        ready = [
            name for name, dimension in waiting.items() if dimension.when.keys() <= ordered.keys()
        ]
        if not ready:
            conditions = ", ".join(f"{name} on {list(d.when)}" for name, d in waiting.items())
            raise UserError(
                f"{path}: `when` must name other parameters of the space, without a circle; "
                f"got {conditions}"
            )
        ordered.update({name: waiting.pop(name) for name in ready})
    return ordered


def _wrong_values(space: Space) -> list[str]:
    faults = []
    for name, dimension in space.dimensions.items():
        if name not in TrialConfig.model_fields:
            known = ", ".join(TrialConfig.model_fields)
            faults.append(f"unknown parameter {name}; known are {known}")
            continue
        if dimension.low is not None and TrialConfig.model_fields[name].annotation not in (
            int,
            float,
        ):
            faults.append(f"{name}: a range is for numbers; give choices")
            continue
        for value in (*dimension.extremes, dimension.otherwise):
            if value is not None and (fault := _refusal({name: value}, name)):
                faults.append(fault)
        for other, values in dimension.when.items():
            strange = [value for value in values if not space.dimensions[other].holds(value)]
            if strange:
                faults.append(f"{name}: `when` lists {strange}, which {other} never takes")
    lowest: dict[str, Value] = {
        name: min(_numbers(all_values(name, space.dimensions[name])))
        for name in ("cross_entropy_weight", "focal_weight")
        if not faults and name in space.dimensions
    }
    if not faults and (fault := _refusal(lowest, None)):
        faults.append(f"at the lowest loss weights: {fault}")
    return faults


def all_values(name: str, dimension: Dimension) -> tuple[Value, ...]:
    """The extremes, and what the parameter is where its condition does not hold."""
    if not dimension.when:
        return dimension.extremes
    if dimension.otherwise is not None:
        return (*dimension.extremes, dimension.otherwise)
    return (*dimension.extremes, _given(TrialConfig.model_fields[name].default))


def _numbers(values: tuple[Value, ...]) -> list[float]:
    return [float(value) for value in values if not isinstance(value, (bool, str))]


def _refusal(point: Mapping[str, Value], name: str | None) -> str | None:
    # A single loss weight may be 0 as long as the others are not: judged apart.
    if name in {"cross_entropy_weight", "focal_weight"}:
        point = {"cross_entropy_weight": 1.0, "focal_weight": 1.0, **point}
        point = {**point, "dice_weight": 1.0}
        if isinstance(point[name], (int, float)) and point[name] == 0:
            return None
    try:
        TrialConfig.model_validate(point)
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        return f"{name}: {message}, got {point[name]!r}" if name else message
    return None


def _wrong_encoders(space: Space, channels: int) -> list[str]:
    depths = space.dimensions.get("encoder_depth")
    deepest = 5 if depths is None else int(max(_numbers(depths.extremes), default=5))
    faults = []
    for encoder in space.encoders():
        try:
            check_encoder(encoder, deepest, channels)
        except UserError as error:
            faults.append(str(error))
    return faults


def _wrong_first(space: Space) -> list[str]:
    faults = []
    for index, point in enumerate(space.first):
        for name, value in point.items():
            if name not in space.dimensions:
                faults.append(f"first.{index}: {name} is no parameter of the space")
            elif not space.dimensions[name].holds(value) or _is_broken(name, value):
                faults.append(f"first.{index}: {name} cannot be {value!r}")
            else:
                when = space.dimensions[name].when
                barred = [
                    k for k, allowed in when.items() if k in point and point[k] not in allowed
                ]
                faults += [
                    f"first.{index}: {name} is not there when {k} is {point[k]!r}" for k in barred
                ]
    return faults


def _is_broken(name: str, value: Value) -> bool:
    """Whether a whole number is asked for and this is none."""
    return TrialConfig.model_fields[name].annotation is int and value != int(value)


def _exists(dimension: Dimension, point: Mapping[str, Value]) -> bool:
    return all(point[name] in values for name, values in dimension.when.items())


def _elsewhere(name: str, dimension: Dimension) -> Value:
    """What a parameter is where its condition does not hold."""
    if dimension.otherwise is not None:
        return dimension.otherwise
    return _given(TrialConfig.model_fields[name].default)


def _middle(name: str, dimension: Dimension) -> Value:
    if dimension.low is None or dimension.high is None:
        return dimension.extremes[0]
    low, high = dimension.low, dimension.high
    middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
    return round(middle) if TrialConfig.model_fields[name].annotation is int else middle


def _suggest(trial: optuna.trial.BaseTrial, name: str, dimension: Dimension) -> Value:
    if dimension.value is not None:
        return dimension.value
    drawn = _distribution(name, dimension)
    if isinstance(drawn, CategoricalDistribution):
        return _given(trial.suggest_categorical(name, drawn.choices))
    if isinstance(drawn, IntDistribution):
        return trial.suggest_int(name, drawn.low, drawn.high, log=drawn.log)
    return trial.suggest_float(name, drawn.low, drawn.high, log=drawn.log)


def _distribution(
    name: str, dimension: Dimension
) -> CategoricalDistribution | IntDistribution | FloatDistribution:
    if dimension.low is None or dimension.high is None:
        return CategoricalDistribution(dimension.extremes)
    if TrialConfig.model_fields[name].annotation is int:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _given(value: Value | None) -> Value:
    if value is None:
        raise ValueError("a dimension's value must be given")
    return value


def enqueue_first(study: optuna.Study, space: Space) -> None:
    """Queue the default point, then the space's other first points."""
    study.enqueue_trial(space.default_point(), user_attrs={ORIGIN: DEFAULT})
    for point in space.first[1:]:
        study.enqueue_trial(dict(point), user_attrs={ORIGIN: FIRST_POINT})


def plain(config: TrialConfig) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return config.model_dump(mode="json")
