"""Markup and tables: what is text stays text."""

from __future__ import annotations

import pytest

from strokeseg.reporting.markup import Markup, join, png_uri, tag
from strokeseg.reporting.table import Table, number, table_html, table_markdown


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = tag("b", "1 < 2 & 3")
    assert tag("p", "<i>", inner, None) == "<p>&lt;i&gt;<b>1 &lt; 2 &amp; 3</b></p>"
    assert join("<", Markup("<br/>")) == "&lt;<br/>"


def test_an_attribute_cannot_leave_its_quotes() -> None:
    hostile = '" onload="alert(1)'
    assert tag("img", alt=hostile) == '<img alt="&quot; onload=&quot;alert(1)"/>'


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"class_": "a"}, ' class="a"'),
        ({"data_case": "1"}, ' data-case="1"'),
        ({"x": 2.0}, ' x="2"'),
        ({"x": 1.239}, ' x="1.24"'),
        ({"x": 100}, ' x="100"'),
        ({"id": None}, ""),
    ],
)
def test_attributes_are_written_as_html_spells_them(
    given: dict[str, str | float | None], written: str
) -> None:
    assert tag("line", **given) == f"<line{written}/>" or tag("line", **given) == (
        f"<line{written}></line>"
    )


def test_a_picture_is_its_own_address() -> None:
    # "PNG" is 0x50 0x4E 0x47: 010100 000100 111001 000111, in base64 U E 5 H.
    assert png_uri(b"PNG") == "data:image/png;base64,UE5H"


def test_nothing_is_a_dash() -> None:
    assert (number(None), number(0.12345), number(2, 1)) == ("-", "0.123", "2.0")


def test_a_table_is_the_same_in_html_and_markdown() -> None:
    table = Table(
        title="A", columns=("case", "why"), rows=[("a|b", "line\nbreak <b>")], note="one & two"
    )
    assert table_markdown(table) == (
        "**A**\n\n| case | why |\n| :-- | --: |\n| a\\|b | line break &lt;b> |\n\none &amp; two"
    )
    html = table_html(table)
    assert '<th scope="row">a|b</th><td>line\nbreak &lt;b&gt;</td>' in html
    assert '<p class="note">one &amp; two</p>' in html
