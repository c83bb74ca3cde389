"""The report as a page and as Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from strokeseg.evaluation.summarise import by_size, methods_of
from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.records.summary import interval_text
from strokeseg.reporting import plots, tables, wording
from strokeseg.reporting.markdown import report_markdown
from strokeseg.reporting.page import report_page
from strokeseg.reporting.results import Results

VOID = {"meta", "img", "input"}


class Checker(HTMLParser):
    """Checks that elements are closed in order and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.addresses: list[str] = []
        self.pictures_without_words: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        keys = {"src", "href", "xlink:href"}.intersection(values)
        self.addresses += [values[key] or "" for key in keys]
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "img" and "hidden" not in values and not values.get("alt"):
            self.pictures_without_words.append(values.get("src") or "")
        if tag == "svg" and not values.get("aria-label"):
            self.pictures_without_words.append(tag)
        if tag not in VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return report_page(results)


@pytest.fixture(scope="module")
def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    return checker


def test_the_page_is_well_formed_and_every_id_is_its_own(checked: Checker) -> None:
    assert checked.opened == []
    assert len(set(checked.ids)) == len(checked.ids)


def test_equal_results_make_equal_pages(results: Results, page: str) -> None:
    assert report_page(results) == page


def test_the_page_fetches_nothing(page: str, checked: Checker) -> None:
    assert all(address.startswith(("data:image/", "#")) for address in checked.addresses)
    assert "content=\"default-src 'none';" in page
    assert "@import" not in page and "url(" not in page


def test_every_picture_and_plot_has_words(checked: Checker) -> None:
    assert checked.pictures_without_words == []


def test_both_say_what_was_measured(results: Results, page: str) -> None:
    text = report_markdown(results)
    mean = f"{results.dice['mean']:.3f}"
    for words in (mean, "3 cases of 3 patients", "isles22", "simulated", "5" * 64):
        assert words in text and words in page
    assert interval_text(results.dice) in text
    for words in ("members an axis", "+0.041", "-0.007", "fold 1", "locked"):
        assert words in text and words in page


def test_names_and_reasons_cannot_become_markup(results: Results, page: str) -> None:
    assert "nnU-Net &lt;2D&gt; | other" in page and "<2D>" not in page
    assert "a &lt;damaged&gt; file" in page and "<damaged>" not in page
    text = report_markdown(results)
    assert "nnU-Net &lt;2D> \\| other" in text


def test_tables_of_markdown_have_as_many_cells_in_every_row(results: Results) -> None:
    for block in report_markdown(results).split("\n\n"):
        if block.startswith("| "):
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(cells) == 1, block


def test_a_case_whose_files_are_gone_is_named_and_the_page_is_made_all_the_same(
    results: Results,
) -> None:
    name = results.rows()[0].case
    case = results.preparation.cases[name]
    moved = replace(case, images=dict.fromkeys(case.images, Path("moved.nii.gz")))
    cases = {**results.preparation.cases, name: moved}
    page = report_page(replace(results, preparation=replace(results.preparation, cases=cases)))
    assert "It cannot be shown: moved.nii.gz: no such file" in page


def test_scores_of_validation_patients_are_never_taken_for_a_test(results: Results) -> None:
    summary = {**results.summary, "on": "validation", "caution": "these flatter"}
    text = report_markdown(replace(results, summary=summary))
    assert "No test: these flatter." in text and "Unseen test cases" not in text


def test_without_steps_the_page_says_that_nothing_was_chosen(results: Results) -> None:
    assert "No step was tried" in report_markdown(replace(results, choice=None))


@pytest.mark.parametrize("trials", [0, 1])
def test_too_few_trials_have_no_parallel_coordinates(results: Results, trials: int) -> None:
    rows: list[LeaderboardRow] = list(results.boards["axial"])[:trials]
    assert plots.parallel_coordinates("axial", rows) is None


def test_the_history_tells_ends_apart_by_shape(results: Results) -> None:
    plot = plots.history("axial", results.boards["axial"])
    for words in ("trial 0, complete", "trial 2, stopped early", "trial 1, failed", "run of 0"):
        assert words in plot


def test_cases_without_a_dice_leave_a_page_that_says_so(results: Results) -> None:
    undefined = {**results.dice, **dict.fromkeys(("mean", "median", "low", "high")), "cases": 0}
    vote = results.summary["methods"]["vote"]
    metrics = {**vote["metrics"], "dice": undefined}
    methods = {"vote": {**vote, "metrics": metrics}}
    summary = {**results.summary, "policy": "nnunet", "methods": methods, "by_size": []}
    page = report_page(replace(results, summary=summary, scores=[]))
    assert "By the policy nnunet no case has a Dice." in page


@pytest.fixture
def one_undefined(results: Results) -> Results:
    """The results, but that the best case has no Dice and no lesion, by the policy nnunet."""
    best = results.rows()[-1].case
    rows = [
        replace(row, values={**row.values, "dice": None, "true_ml": 0.0})
        if row.case == best
        else row
        for row in results.scores
    ]
    summary = {**results.summary, "policy": "nnunet"}
    summary.update(methods=methods_of(rows), by_size=by_size(rows))
    return replace(results, summary=summary, scores=rows)


def test_a_case_without_a_dice_is_in_no_count_of_the_mean_but_in_the_table(
    one_undefined: Results, results: Results
) -> None:
    said = wording.headline(one_undefined)
    assert "over 2 cases of 2 patients" in said and "by the policy nnunet" in said
    assert said.endswith("1 further case had no Dice")
    assert "policy" not in wording.headline(results)
    last = tables.cases_table(one_undefined).rows[-1]
    assert last[0] == results.rows()[-1].case and last[2] == "-"
    (vote,) = tables.methods_table(one_undefined, "vote").rows
    assert vote[1] == "3" and vote[2].endswith("; n = 2)")


def test_a_case_without_a_lesion_is_no_small_lesion_in_the_plot(results: Results) -> None:
    best = results.rows()[-1].case
    scores = [
        replace(row, values={**row.values, "true_ml": 0.0}) if row.case == best else row
        for row in results.scores
    ]
    without = replace(results, scores=scores)
    assert f"case {best}:" in plots.dice_by_volume(results)
    assert f"case {best}:" not in plots.dice_by_volume(without)
    assert wording.volume_note(without).endswith("Left out: 1 case without a lesion.")
    assert "Left out" not in wording.volume_note(results)


def test_failures_of_baselines_are_listed_after_those_of_the_ensemble(results: Results) -> None:
    summary = {**results.summary, "baselines_failed": {"3 (nnU-Net)": "no mask"}}
    told = replace(results, summary=summary)
    assert list(told.failed) == ["77", "3 (nnU-Net)"]
    assert "- failed: 3 (nnU-Net): no mask" in report_markdown(told)


def test_a_mean_names_its_cases_where_they_are_not_all() -> None:
    statistic = {"mean": 0.5, "low": None, "high": None, "cases": 1}
    assert tables.mean_text(statistic, 1) == "0.500"
    assert tables.mean_text(statistic, 2) == "0.500 (n = 1)"
    assert tables.mean_text({**statistic, "low": 0.4, "high": 0.6}, 2, 1) == (
        "0.5 (0.4 to 0.6; n = 1)"
    )
    assert tables.mean_text({**statistic, "mean": None, "cases": 0}, 2) == "-"


@pytest.mark.parametrize(
    ("patients", "smallest_p", "narrow"),
    [((4, 7), "0.125", True), ((9, 12), "", True), ((10,), "", False)],
)
def test_the_note_of_the_tests_is_as_careful_as_the_smallest_asks_for(
    results: Results, patients: tuple[int, ...], smallest_p: str, narrow: bool
) -> None:
    # 4 patients all alike: 2 / 2**4.
    tests = [{"test": "signed-rank", "patients": number} for number in reversed(patients)]
    note = wording.tests_note(replace(results, summary={**results.summary, "tests": tests}))
    assert ("intervals over so few as" in note) == narrow
    assert ("the smallest p that" in note) == bool(smallest_p) and smallest_p in note
