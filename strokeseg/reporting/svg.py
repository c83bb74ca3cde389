"""The parts of plots, as SVG that the page's style colours.

A *scale* takes values to positions in the drawing. A *mark* is one thing drawn: a point, a line.
Marks take their colour from a *hue*, a class of the page's style, and points have a shape of
their own beside it, so that a plot says the same in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, log10, pi, sin

from strokeseg.reporting.markup import Html, tag

SHAPES = ("circle", "square", "triangle", "diamond")
HUES = ("hue-a", "hue-b", "hue-c", "hue-d")

_RADIUS = 4.5
_CORNERS = {"square": (4, pi / 4), "triangle": (3, -pi / 2), "diamond": (4, 0.0)}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to positions.

    Attributes:
        low: Value at `start`.
        high: Value at `end`; another than `low`.
        start: Position in the drawing.
        end: Position in the drawing.
        logarithmic: Whether equal ratios, not differences, are equally long; `low` is above 0.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Position of a value; of one that lies outside, the nearer end."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, inside = log10(low), log10(high), log10(inside)
        return self.start + (inside - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values to write at the axis."""
        if self.logarithmic:
            powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            candidates = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        else:
            step = _round_step((self.high - self.low) / wanted)
            first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
            candidates = [index * step for index in range(first, last + 1)]
        slack = 1e-9 * (self.high - self.low)
        return [tick for tick in candidates if self.low - slack <= tick <= self.high + slack]


def figure(width: int, height: int, title: str, marks: Sequence[Html]) -> Html:
    """Return a drawing.

    Args:
        width: Of the drawing; one is about a pixel.
        title: What is to be seen, for those who cannot.
        marks: From the lowest to the topmost.
    """
    return tag(
        *("svg", tag("title", title), *marks),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
        xmlns="http://www.w3.org/2000/svg",
    )


def frame(x: Scale, y: Scale, x_title: str, y_title: str) -> list[Html]:
    """Return grid lines, their values and the titles of two axes; `y` starts at the bottom."""
    marks = []
    for tick in y.ticks():
        at = y.place(tick)
        marks.append(line([(x.start, at), (x.end, at)], "grid"))
        marks.append(text(f"{_tidy(tick):g}", x.start - 6, at + 4, anchor="end"))
    for tick in x.ticks():
        at = x.place(tick)
        marks.append(line([(at, y.start), (at, y.start + 4)], "axis"))
        marks.append(text(f"{_tidy(tick):g}", at, y.start + 18, anchor="middle"))
    marks.append(line([(x.start, y.start), (x.end, y.start)], "axis"))
    marks.append(text(x_title, (x.start + x.end) / 2, y.start + 36, anchor="middle", kind="title"))
    marks.append(text(y_title, x.start - 34, y.end - 12, kind="title"))
    return marks


def text(words: str, x: float, y: float, *, anchor: str = "start", kind: str = "label") -> Html:
    """Return words; `anchor` says which of their ends is at `x`: start, middle or end."""
    return tag("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=kind)


def line(points: Sequence[tuple[float, float]], kind: str, tip: str = "") -> Html:
    """Return a line through points; `kind` is its class, `tip` its tooltip."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", *_tip(tip), points=path, class_=f"line {kind}")


def bar(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> Html:
    """Return a filled rectangle."""
    return tag(
        *("rect", *_tip(tip)),
        x=float(x),
        y=float(y),
        width=float(max(width, 0)),
        height=float(height),
        rx=2,
        class_=kind,
    )


def point(x: float, y: float, shape: str, kind: str, tip: str = "") -> Html:
    """Return a point of one of the `SHAPES`, or a `cross`."""
    if shape == "circle":
        return tag("circle", *_tip(tip), cx=float(x), cy=float(y), r=_RADIUS, class_=kind)
    if shape == "cross":
        arm = _RADIUS - 1
        path = f"M{x - arm:.1f} {y - arm:.1f}l{2 * arm} {2 * arm}m{-2 * arm} 0l{2 * arm} {-2 * arm}"
        return tag("path", *_tip(tip), d=path, class_=f"line {kind}")
    corners, turn = _CORNERS[shape]
    reach = _RADIUS * 1.25
    at = (
        (x + reach * cos(turn + 2 * pi * i / corners), y + reach * sin(turn + 2 * pi * i / corners))
        for i in range(corners)
    )
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in at)
    return tag("polygon", *_tip(tip), points=path, class_=kind)


def legend(entries: Sequence[tuple[str, str, str]], x: float, y: float) -> list[Html]:
    """Return entries (shape, class, words) side by side from `x` on; 7 a letter are left free."""
    marks = []
    for shape, kind, words in entries:
        marks += [point(x + 6, y - 4, shape, kind), text(words, x + 15, y)]
        x += 30 + 7 * len(words)
    return marks


def _tip(words: str) -> tuple[Html, ...]:
    return (tag("title", words),) if words else ()


def _round_step(step: float) -> float:
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _tidy(value: float) -> float:
    # 3 * 0.1 is 0.30000000000000004, and -0.0 is no value for an axis.
    return round(value, 9) + 0.0
