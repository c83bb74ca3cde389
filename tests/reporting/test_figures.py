"""Matplotlib figures as inline SVG."""

from __future__ import annotations

import re
from html import unescape

import pytest
from markupsafe import Markup

from strokeseg.reporting.figures import A, empty_figure, inline_svg, page_style, tooltip


def drawn(name: str, tip: str = "case 1") -> Markup:
    with page_style(name):
        figure, axes = empty_figure(200, 100)
        axes.plot([0.5], [0.5], "o", color=A, gid=tooltip(tip))
        axes.axhline(0.5)
        axes.set_xlabel("true volume <ml>")
        return inline_svg(figure, 'a "title"')


def test_equal_figures_are_equal_text_and_ids_differ_by_name() -> None:
    assert drawn("one") == drawn("one")
    ids = [set(re.findall(r'\bid="([^"]*)"', drawn(name))) for name in ("one", "other")]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_a_figure_takes_the_colours_of_the_page_and_keeps_its_text() -> None:
    svg = drawn("one")
    assert "fill: var(--a)" in svg and "stroke: var(--rule)" in svg
    assert "#010a" not in svg
    assert "true volume &lt;ml&gt;</text>" in svg
    assert 'aria-label="a &quot;title&quot;"' in svg and 'viewBox="0 0 200 100"' in svg


@pytest.mark.parametrize("tip", ["case <1> & 2", 'a "case"', "it's one", """it's "one" """])
def test_a_point_says_what_it_is_when_one_points_at_it(tip: str) -> None:
    titles = re.findall(r"<g><title>([^<>]*)</title>", drawn("one", tip))
    assert [unescape(title) for title in titles] == [tip]


def test_a_figure_refers_to_nothing_outside_itself() -> None:
    svg = drawn("one")
    assert "url(" not in svg and "<metadata>" not in svg
    references = set(re.findall(r'xlink:href="#([^"]*)"', svg))
    assert references <= set(re.findall(r'\bid="([^"]*)"', svg))
