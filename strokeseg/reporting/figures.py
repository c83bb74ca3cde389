"""Matplotlib figures as inline SVG in the colours of the page.

Figures are drawn in *placeholder* colours, each of which becomes a CSS variable of the page, so
that a plot follows the page into dark mode. Text stays text in the page's font. One point of a
figure is one unit of the drawing.

An artist whose `gid` is made by `tooltip` shows that text when the pointer is over it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

A, B, C, D = HUES = ("#010a01", "#010a02", "#010a03", "#010a04")
INK, QUIET, RULE, GROUND = ("#010a05", "#010a06", "#010a07", "#010a08")
_VARIABLES = {
    **{A: "--a", B: "--b", C: "--c", D: "--d"},
    **{INK: "--ink", QUIET: "--quiet", RULE: "--rule", GROUND: "--ground"},
}
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelpad": 6,
    "axes.labelsize": "medium",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": "medium",
    "axes.unicode_minus": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    # Layout is measured in this font, which comes with Matplotlib; the page shows its own.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.5,
    "grid.color": RULE,
    "legend.columnspacing": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 1,
    "legend.handletextpad": 0.3,
    "lines.markersize": 9,
    "lines.solid_capstyle": "butt",
    "svg.fonttype": "none",
    "text.color": QUIET,
    # A dollar in a name starts no formula.
    "text.parse_math": False,
    "xtick.color": QUIET,
    "xtick.major.pad": 6,
    "ytick.color": QUIET,
    "ytick.major.pad": 6,
    "ytick.major.size": 0,
}
_TOOLTIP = "tooltip:"
_POINTS_PER_INCH = 72


@contextmanager
def page_style(name: str, *, grid: Literal["x", "y"] | None = "y") -> Iterator[None]:
    """Apply the settings under which a figure is made and saved.

    Args:
        name: Unique on the page; the figure's ids depend on it and on what is drawn.
        grid: The axis whose ticks have grid lines.
    """
    axis: dict[Any, Any] = {"axes.grid": grid is not None, "axes.grid.axis": grid or "both"}
    with matplotlib.rc_context({**_STYLE, **axis, "svg.hashsalt": name}):
        yield


def empty_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of a size in points, and its axes."""
    figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    return figure, figure.add_subplot()


def tooltip(text: str) -> str:
    """Return the `gid` of an artist that shows a text when the pointer is over it."""
    return f"{_TOOLTIP}{text}"


def inline_svg(figure: Figure, title: str) -> Markup:
    """Return a figure as an SVG element for an HTML page.

    Args:
        figure: Made under `page_style`, which is still in force.
        title: Describes the figure to screen readers.
    """
    # Once laid out, the figure is not laid out again by each draw of `savefig`.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for artist in figure.findobj():
        # A clipped artist refers to its clip path by `url()`, which the page does not need.
        artist.set_clip_on(False)
    file = StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    body = file.getvalue().partition("</defs>")[2]
    body = re.sub(rf"""<g id=(["']){_TOOLTIP}(.*?)\1>""", r"<g><title>\2</title>", body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    words = escape(title)
    size = figure.get_size_inches() * _POINTS_PER_INCH
    return Markup(
        f'<svg viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-label="{words}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink"><title>{words}</title>{body}'
    )
