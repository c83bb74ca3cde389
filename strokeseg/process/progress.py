"""How long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with what is done, of how much, and a note.
Show: TypeAlias = Callable[[int, int, str], None]
