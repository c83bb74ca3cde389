"""Frozen, checked settings and results, and one error for all that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from strokeseg.errors import UserError, listed, shown


class Record(BaseModel):
    """A frozen set of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyRecord = TypeVar("AnyRecord", bound=Record)


def parse_record(kind: type[AnyRecord], values: Mapping[str, Any], where: str) -> AnyRecord:
    """Make a record of plain values.

    Args:
        kind: The record's class.
        values: Plain values as YAML or JSON give them.
        where: The file, for the error.

    Raises:
        UserError: With every fault at once.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}") from None


def parse_values(kind: Any, values: Any, where: str, remedy: str) -> Any:
    """Check plain values that strokeseg wrote itself, and return them as they are.

    Args:
        kind: Their type, such as a `TypedDict`.
        values: What JSON gave.
        where: The file, for the error.
        remedy: What to do when it is damaged.

    Raises:
        UserError: With every fault at once.
    """
    try:
        TypeAdapter(kind).validate_python(values, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}; {remedy}") from None
    # What pydantic returns has floats for integers.
    return values


def _describe(error: ValidationError) -> str:
    return listed([_describe_fault(dict(fault)) for fault in error.errors(include_url=False)])


def _describe_fault(fault: Mapping[str, Any]) -> str:
    key = ".".join(shown(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key}; remove it or correct its spelling"
    message = shown(fault["msg"].removeprefix("Value error, "))
    if fault["type"] in {"missing", "value_error"}:
        return f"{key}: {message}" if key else message
    said = f"{message}, got {shown(repr(fault['input']))}"
    return f"{key}: {said}" if key else said
