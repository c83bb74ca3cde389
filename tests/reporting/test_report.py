"""The report's page and its Markdown twin, of an experiment that is finished."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import strokeseg.report
from strokeseg.experiment import Experiment, open_experiment
from strokeseg.files import read_json
from strokeseg.imaging.cases import mask_name

VOID = {"meta", "img", "input"}
MOST_BYTES = 5 << 20


class Outline(HTMLParser):
    """What a browser would make of a page: its elements, and whether they are nested well."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(finished: Experiment) -> str:
    strokeseg.report.report(finished, "strokeseg run --experiment <small>")
    return finished.report_html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_the_page_is_nested_well_and_small(page: str, outline: Outline) -> None:
    assert not outline.open
    assert len(page.encode()) < MOST_BYTES


def test_the_page_fetches_nothing(page: str, outline: Outline) -> None:
    sources = [
        value
        for _, attributes in outline.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "action", "data"} and value
    ]
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not re.search(r"@import|url\(", page)
    (policy,) = (
        attributes["content"] or ""
        for attributes in outline.attributes("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_links_lead_to_sections_that_are_there(outline: Outline) -> None:
    ids = {attributes["id"] for _, attributes in outline.elements if "id" in attributes}
    assert {(a["href"] or "")[1:] for a in outline.attributes("a")} <= ids


def test_names_and_settings_cannot_become_markup(page: str, outline: Outline) -> None:
    assert "alert(1)" in "".join(outline.words)
    assert "<script>alert(1)" not in page
    assert "<b>99" not in page
    # The viewer's own two, and nothing else.
    assert len(outline.attributes("script")) == 1


def test_the_headline_is_the_votes_dice_with_its_interval(
    finished: Experiment, outline: Outline
) -> None:
    dice = read_json(finished.summary_json("test"))["methods"]["vote"]["metrics"]["dice"]
    expected = f"Dice {dice['mean']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})"
    assert expected in outline.words
    assert any("4 cases of 4 patients" in words for words in outline.words)


def test_every_chart_and_picture_is_told_in_words(outline: Outline) -> None:
    pictures = [image["alt"] or "" for image in outline.attributes("img")]
    assert all(pictures)
    planes = [alt for alt in pictures if alt.startswith("Case")]
    # Worst, median and best, two sequences each.
    assert len(planes) == 6
    charts = outline.attributes("svg")
    # Four of the results; history and parallel coordinates of three axes; importances of one.
    assert len(charts) == 4 + 3 * 2 + 1
    assert len(outline.attributes("details")) == len(charts)


def test_the_protocol_names_what_made_the_numbers(finished: Experiment, outline: Outline) -> None:
    summary = read_json(finished.summary_json("test"))
    said = " ".join(outline.words)
    for fact in ("splits_hash", "preparation_hash", "ensemble_sha256", "policy"):
        assert summary[fact] in said
    assert "strokeseg run --experiment <small>" in said
    assert "2 in fold 0, 2 in fold 1, 4 locked for the test" in said


def test_equal_results_give_equal_bytes(finished: Experiment, page: str) -> None:
    strokeseg.report.report(finished, "strokeseg run --experiment <small>")
    assert finished.report_html.read_text(encoding="utf-8") == page


def test_markdown_says_the_same_in_tables(finished: Experiment, page: str) -> None:
    text = finished.report_md.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "resnet&lt;script>alert(1)&lt;/script>&amp;\\|" in text
    dice = read_json(finished.summary_json("test"))["methods"]["axial"]["metrics"]["dice"]
    assert f"| axial | axis | 4 | {dice['mean']:.3f} ({dice['low']:.3f}" in text
    (step,) = (line for line in text.splitlines() if line.startswith("| threshold"))
    assert len(re.findall(r"(?<!\\)\|", step)) == 9


@pytest.fixture
def copied(finished: Experiment, tmp_path: Path) -> Experiment:
    storage = tmp_path / "runs"
    shutil.copytree(finished.folder, storage / finished.name)
    return open_experiment(str(finished.config_path), str(storage))


def test_a_case_whose_mask_is_gone_is_named_and_the_rest_is_shown(
    copied: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in copied.masks_folder("test").glob("*"):
        if case.name != mask_name("1", "vote"):
            case.unlink()
    strokeseg.report.report(copied)
    page = copied.report_html.read_text(encoding="utf-8")
    shown = page.count('class="sight"')
    assert shown + page.count("cannot be shown") == 3
    assert "no such file" in capsys.readouterr().err


def test_an_ensemble_without_a_recorded_choice_is_reported(copied: Experiment) -> None:
    copied.choice_json.unlink()
    strokeseg.report.report(copied)
    assert "before choices were recorded" in copied.report_html.read_text(encoding="utf-8")


def test_an_ensemble_without_scores_is_refused_in_a_line(
    copied: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    copied.summary_json("test").unlink()
    arguments = ["--experiment", str(copied.config_path), "--storage", str(copied.folder.parent)]
    assert strokeseg.report.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has not been scored; run strokeseg evaluate" in line
