"""The search space and what it asks of Optuna; `space_file` reads it.

A *space* names the parameters of a trial that may vary. A *dimension* is one of them: a
range (`low`, `high`), a list of `choices`, or one fixed `value`. A dimension with `when`
exists only where another parameter has one of the values listed; elsewhere the parameter
takes `otherwise`, or the default of `TrialConfig`. A *first point* is tried before the
sampler proposes any of its own; the first of them is the *default*, what most would train,
against which every study states its gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.records.leaderboard import DEFAULT, FIRST_POINT
from strokeseg.records.record import Record
from strokeseg.training.encoders import WantedEncoders

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

    def default_config(self) -> TrialConfig:
        """Return the configuration of the default point."""
        return self.ask(optuna.trial.FixedTrial(dict(self.default_point())))

    def parameters_of(self, config: TrialConfig) -> dict[str, Value] | None:
        """Return what this space would have to propose for a configuration, or None.

        None means that the configuration is no point of this space.
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

    def wanted_encoders(
        self, path: Path, channels: int, weights_dir: Path | None
    ) -> WantedEncoders:
        """Return what this space asks of encoders; see `encoders.WantedEncoders`."""
        return WantedEncoders(
            path=path,
            networks=self.networks(),
            pretrained=self.pretrained_encoders(),
            channels=channels,
            weights_dir=weights_dir,
        )

    def networks(self) -> tuple[NetworkConfig, ...]:
        """All kinds of networks in the space, of numbers the largest only."""
        values = {}
        for name, field in NetworkConfig.model_fields.items():
            dimension = self.dimensions.get(name)
            all_of = (field.default,) if dimension is None else all_values(name, dimension)
            values[name] = (max(all_of),) if field.annotation is int else dict.fromkeys(all_of)
        return tuple(
            NetworkConfig.model_validate(dict(zip(values, point, strict=True)))
            for point in product(*values.values())
        )

    def encoders(self) -> tuple[str, ...]:
        """All encoders in the space."""
        dimension = self.dimensions.get("encoder")
        default = TrialConfig.model_fields["encoder"].default
        return (default,) if dimension is None else tuple(map(str, dimension.extremes))


def all_values(name: str, dimension: Dimension) -> tuple[Value, ...]:
    """The extremes, and what the parameter is where its condition does not hold."""
    if not dimension.when:
        return dimension.extremes
    if dimension.otherwise is not None:
        return (*dimension.extremes, dimension.otherwise)
    return (*dimension.extremes, _given(TrialConfig.model_fields[name].default))


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
