"""Search spaces as YAML files, read and checked against what a trial can be.

A space may name a `base` file, whose parameters it overrides one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from strokeseg.errors import UserError, listed
from strokeseg.records.config import OTHER_LOSS_WEIGHTS, TrialConfig
from strokeseg.records.record import Record, parse_record
from strokeseg.storage.yaml_file import load_yaml
from strokeseg.tuning.space import Dimension, Space, Value, all_values


class _SpaceFile(Record):
    base: str | None = None
    parameters: dict[str, Dimension | None] = {}
    first: tuple[dict[str, Value], ...] = ()


def load_space(path: Path) -> Space:
    """Read a search space, its base included, and check it against what a trial can be.

    Whether its encoders can be built, `encoders.find_encoders` checks.

    Raises:
        UserError: With every fault at once: unknown keys or parameters, values that a
            trial refuses, conditions on what comes later or not at all.
    """
    file = parse_record(_SpaceFile, load_yaml(path), str(path))
    parameters: dict[str, Dimension | None] = {}
    first = file.first
    if file.base is not None:
        base_path = path.parent / file.base
        try:
            base = parse_record(_SpaceFile, load_yaml(base_path), str(base_path))
        except UserError as error:
            raise UserError(f"{path}: base: {error}") from None
        if base.base is not None:
            raise UserError(f"{base_path}: a base space must not have a base itself")
        parameters.update(base.parameters)
        first = first or base.first
    parameters.update(file.parameters)
    dimensions = {name: dimension for name, dimension in parameters.items() if dimension}
    space = Space(dimensions=_ordered(dimensions, path), first=first)
    faults = [*_wrong_values(space), *_wrong_first(space)]
    if faults:
        raise UserError(f"{path}: {listed(faults)}")
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
        for name in OTHER_LOSS_WEIGHTS
        if not faults and name in space.dimensions
    }
    if not faults and (fault := _refusal(lowest, None)):
        faults.append(f"at the lowest loss weights: {fault}")
    return faults


def _numbers(values: tuple[Value, ...]) -> list[float]:
    return [float(value) for value in values if not isinstance(value, (bool, str))]


def _refusal(point: Mapping[str, Value], name: str | None) -> str | None:
    # A single loss weight may be 0 as long as the others are not: judged apart.
    if name in OTHER_LOSS_WEIGHTS:
        point = {**dict.fromkeys(OTHER_LOSS_WEIGHTS, 1.0), **point, "dice_weight": 1.0}
        if isinstance(point[name], (int, float)) and point[name] == 0:
            return None
    try:
        TrialConfig.model_validate(point)
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        return f"{name}: {message}, got {point[name]!r}" if name else message
    return None


def _wrong_first(space: Space) -> list[str]:
    faults = []
    for index, point in enumerate(space.first):
        for name, value in point.items():
            if name not in space.dimensions:
                faults.append(f"first.{index}: {name} is no parameter of the space")
            elif not space.dimensions[name].holds(value) or _refusal({name: value}, name):
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
