"""A YAML file as what it is: somebody else's.

A few lines of YAML stand for as many values as somebody likes: an *alias* repeats what an *anchor*
names, and aliases of aliases repeat it a billion times. No configuration needs them, so both are
refused as they are met. Only plain values are made: no tag names a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import yaml

from strokeseg.errors import UserError, shown

_MOST_BYTES = 1 << 18


class _AnchorError(Exception):
    """An anchor or an alias."""


class _Loader(yaml.SafeLoader):
    """A loader of plain values, each written out."""

    def fetch_anchor(self) -> NoReturn:
        """Refuse an anchor or an alias where the scanner meets it."""
        raise _AnchorError(f"line {self.line + 1}")

    fetch_alias = fetch_anchor


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: When the file is missing, too large, is no YAML, has anchors or aliases, or
            holds no mapping.
    """
    text = _read_text(path)
    try:
        values = yaml.load(text, Loader=_Loader)
    except _AnchorError as error:
        raise UserError(
            f"{path}, {error}: must not have an anchor (&) or an alias (*); write the values out"
        ) from None
    except Exception as error:
        # PyYAML lets through whatever its conversions raise: a ValueError for the date 2024-13-45,
        # a KeyError for `!!bool x`, a RecursionError for 500 levels.
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise UserError(f"{path}: is no valid YAML ({reason}); correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of settings, got {type(values).__name__}")
    return values


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: cannot be read (it is no file); check the path")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"{path}: must have at most {_MOST_BYTES} bytes; is it another file?")
        return content.decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: is no valid YAML ({error}); correct it") from None
