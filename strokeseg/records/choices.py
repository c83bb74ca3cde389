"""Choices that a command line offers, and a configuration checks, without loading pydantic."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Sampler: TypeAlias = Literal["tpe", "random", "gp", "cmaes"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
