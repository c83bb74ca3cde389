"""Markup that cannot be broken by what it holds.

*Markup* is HTML or SVG as text. A *string* is any other text: names of cases, paths, reasons.
Elements are made by `tag` alone, which escapes strings and takes markup as it is, so nothing of
a text of a user or a file can become an element of the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

Attribute: TypeAlias = str | float | bool | None

_VOID = {"img", "input", "meta"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: Attribute) -> Html:
    """Return an element.

    Args:
        children: Markup, taken as it is, or strings, which are escaped.
        attributes: By name, with `_` for `-` and after a Python keyword; numbers are written
            with two decimals at most, True as the bare name, False and None not at all.
    """
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Html(start if name in _VOID else f"{start}{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Return parts one after the other, strings among them escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
