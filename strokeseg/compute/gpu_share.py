"""The word on the command line that stands for measuring what share of a GPU a trial gets."""

from __future__ import annotations

from typing import Literal, TypeAlias

Auto: TypeAlias = Literal["auto"]
AUTO: Auto = "auto"
