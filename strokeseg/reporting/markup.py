"""HTML and SVG, put together so that no text of a case or a setting can become markup.

*Markup* is text that is markup already. Everything else that is put into an element or an
attribute is escaped, whoever wrote it.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TypeAlias

_VOID = {"meta", "img", "input", "br", "circle", "line", "rect", "path", "polyline", "polygon"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = str | None
Value: TypeAlias = str | float | None


def tag(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        children: Markup, or text, which is escaped; nothing is left out.
        attributes: By name, with `_` for `-` and at the end of names that Python keeps to itself;
            numbers are rounded to a hundredth, and nothing leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Put markup and text, which is escaped, one after another."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child, quote=False)
            for child in children
            if child is not None
        )
    )


def png_uri(png: bytes) -> str:
    """Return the address of a picture that is its own content."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
