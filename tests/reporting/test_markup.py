"""Markup that cannot be broken by what it holds."""

from __future__ import annotations

import pytest

from strokeseg.reporting.markup import Html, join, tag


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (tag("p", "a < b & c"), "<p>a &lt; b &amp; c</p>"),
        (tag("p", tag("b", "<i>")), "<p><b>&lt;i&gt;</b></p>"),
        (tag("a", "x", href='"><script>'), '<a href="&quot;&gt;&lt;script&gt;">x</a>'),
        (tag("img", alt=""), '<img alt="">'),
        (
            tag("p", class_="note", data_x=None, hidden=True, open=False),
            '<p class="note" hidden></p>',
        ),
        (tag("meta", name="viewport"), '<meta name="viewport">'),
        # Two decimals are finer than any screen.
        (tag("circle", cx=1.23456, cy=2.0, r=10), '<circle cx="1.23" cy="2" r="10"></circle>'),
        (join(["<", Html("<br>")]), "&lt;<br>"),
    ],
)
def test_strings_are_escaped_and_markup_is_taken_as_it_is(made: Html, expected: str) -> None:
    assert made == expected
