"""Charts as inline SVG: scales, a frame with its axes, and marks.

A *scale* takes values to pixels. A *frame* is the place of a chart between its two axes. Colours
come from the page's style sheet, by class, so that they follow the page's light or dark scheme;
marks of different kinds differ in shape, too. A *figure* is a chart with all that a reader needs
who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from strokeseg.reporting.markup import Markup, join, tag
from strokeseg.reporting.table import Table, table_html

Shape: TypeAlias = Literal["circle", "square", "triangle", "diamond", "cross"]

WIDTH, HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 46
_TICKS, _TICK_LENGTH, _RADIUS = 5, 4, 4.5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel of `low`.
        end: Pixel of `high`.
        log: Whether equal ratios are equally far apart; both ends must then be above 0.
        whole: Whether values are whole numbers.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (
            (math.log(number) if self.log else number) for number in (self.low, self.high, value)
        )
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values on the scale; of a logarithmic one its powers of ten, or its ends."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            found = [10.0**power for power in powers]
            return found if len(found) > 1 else [self.low, self.high]
        span = (self.high - self.low) or 1.0
        unit = 10.0 ** math.floor(math.log10(span / _TICKS))
        step = unit * next(step for step in _STEPS if step * unit >= span / _TICKS * 0.999)
        step = max(step, 1.0) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The place of a chart between its axes.

    Attributes:
        x: Scale to the right.
        y: Scale upwards.
        x_title: What is told along x, with its unit.
        y_title: What is told along y, with its unit.
    """

    x: Scale
    y: Scale
    x_title: str
    y_title: str

    def axes(self) -> Markup:
        """Grid lines, numbers and titles."""
        parts = []
        for value in self.x.ticks():
            at = self.x(value)
            parts.append(line((at, self.y.start), (at, self.y.end), "grid"))
            parts.append(text(at, self.y.start + 16, f"{value:g}", anchor="middle"))
        for value in self.y.ticks():
            at = self.y(value)
            parts.append(line((self.x.start, at), (self.x.end, at), "grid"))
            parts.append(text(self.x.start - 7, at + 4, f"{value:g}", anchor="end"))
        middle = (self.y.start + self.y.end) / 2
        return join(
            *parts,
            text((self.x.start + self.x.end) / 2, self.y.start + 37, self.x_title, anchor="middle"),
            tag(
                "text",
                self.y_title,
                transform=f"translate(14 {middle:.0f}) rotate(-90)",
                text_anchor="middle",
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart, and its content for those who cannot see it.

    Attributes:
        title: What it shows.
        chart: An `svg` element.
        caption: How to read it.
        table: The numbers that it shows.
        broad: Whether it takes the page's whole width.
    """

    title: str
    chart: Markup
    caption: str
    table: Table
    broad: bool = False

    def html(self) -> Markup:
        """The figure with its numbers folded away under it."""
        return tag(
            "figure",
            self.chart,
            tag("figcaption", tag("strong", f"{self.title}. "), self.caption),
            tag("details", tag("summary", "The numbers"), table_html(self.table)),
            class_="broad" if self.broad else None,
        )


def frame(
    xs: tuple[float, float],
    ys: tuple[float, float],
    x_title: str,
    y_title: str,
    *,
    whole: bool = False,
) -> Frame:
    """Return a frame of the usual size.

    Args:
        xs: Least and largest value along x.
        ys: The same along y.
        x_title: What is told along x.
        y_title: What is told along y.
        whole: Whether values along x are whole numbers.
    """
    return Frame(
        x=Scale(low=xs[0], high=xs[1], start=_LEFT, end=WIDTH - _RIGHT, whole=whole),
        y=Scale(low=ys[0], high=ys[1], start=HEIGHT - _BOTTOM, end=_TOP),
        x_title=x_title,
        y_title=y_title,
    )


def svg(
    title: str,
    *children: Markup,
    width: float = WIDTH,
    height: float = HEIGHT,
    legend: Sequence[tuple[Shape, str, str]] = (),
) -> Markup:
    """Return a chart that is read out by its title.

    Args:
        title: The alternative text.
        children: What is drawn.
        width: In pixels.
        height: In pixels; the legend comes below.
        legend: Shape, class and meaning of each kind of mark.
    """
    row = 18
    entries = [
        join(
            mark(shape, (_LEFT + 6, height + row * index + 4), class_),
            text(_LEFT + 18, height + row * index + 8, meaning),
        )
        for index, (shape, class_, meaning) in enumerate(legend)
    ]
    return tag(
        "svg",
        tag("title", title),
        *children,
        *entries,
        viewBox=f"0 0 {width:g} {height + row * len(legend):g}",
        role="img",
        class_="chart",
    )


def text(x: float, y: float, content: str, anchor: str = "start") -> Markup:
    """Return a line of text."""
    return tag("text", content, x=x, y=y, text_anchor=anchor)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
    """Return a straight line between two places in pixels."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def polyline(places: Sequence[tuple[float, float]], class_: str, hint: str = "") -> Markup:
    """Return a line through places in pixels; `hint` is shown where the pointer rests on it."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return tag("polyline", *_hint(hint), points=points, class_=class_)


def mark(shape: Shape, at: tuple[float, float], class_: str, hint: str = "") -> Markup:
    """Return a mark at a place in pixels; `hint` is shown where the pointer rests on it."""
    (x, y), r = at, _RADIUS
    if shape == "circle":
        return tag("circle", *_hint(hint), cx=x, cy=y, r=r, class_=class_)
    if shape == "cross":
        path = f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"
        return tag("path", *_hint(hint), d=path, class_=f"{class_} open")
    corners = {
        "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "triangle": ((0, -1.2 * r), (1.2 * r, r), (-1.2 * r, r)),
        "diamond": ((0, -1.4 * r), (1.4 * r, 0), (0, 1.4 * r), (-1.4 * r, 0)),
    }[shape]
    points = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)
    return tag("polygon", *_hint(hint), points=points, class_=class_)


def _hint(hint: str) -> tuple[Markup, ...]:
    return (tag("title", hint),) if hint else ()
