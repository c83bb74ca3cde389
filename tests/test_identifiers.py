"""What identifies patients stays where it was: in the scans, and in what is kept beside them.

All results of an experiment whose scans name a person, see `plants`, are searched for the name,
unpacked.
"""

from __future__ import annotations

import gzip
import html
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from plants import CASE, FOLDER, HEADER
from tiny_experiment import Place

import strokeseg.predict
from strokeseg.records.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Results:
    """Where everything lies that was made of the planted scans."""

    scans: Path
    experiment: Experiment
    masks: Path

    @property
    def bundle(self) -> Path:
        return self.experiment.folder / "bundle.zip"


@pytest.fixture(scope="module")
def results(
    finished: Place, tmp_path_factory: pytest.TempPathFactory, launch: Callable[..., Any]
) -> Results:
    """The finished experiment on planted scans, and masks that its bundle made of them."""
    masks = tmp_path_factory.mktemp("identifiers") / "masks"
    made = Results(scans=finished.cases, experiment=finished.experiment, masks=masks)
    options = ("--bundle", made.bundle, "--input", made.scans, "--output", masks)
    predicted = launch(strokeseg.predict.main, *options, "--device", "cpu")
    assert predicted.code == 0, predicted.err
    return made


def texts(path: Path) -> Iterator[bytes]:
    """A file's name and bytes, and those of what is packed in it."""
    yield path.name.encode()
    content = path.read_bytes()
    yield content
    if path.suffix == ".gz":
        yield gzip.decompress(content)
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        yield str(table.schema).encode()
        yield str([table.column(name).to_pylist() for name in ("case", "patient")]).encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)


def holders(place: Path, word: str) -> list[str]:
    """The files, with their folders, that hold a word."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    assert files
    return sorted(
        path.name
        for path in files
        if word in str(path.relative_to(place))
        or any(word.encode() in text for text in texts(path))
    )


@pytest.mark.parametrize("word", HEADER)
def test_what_a_header_tells_is_in_no_result(results: Results, word: str) -> None:
    # What NIfTI's shortest field has room for.
    word = word[:10]
    assert len(holders(results.scans, word)) == len(list(results.scans.rglob("*.nii")))
    for place in (results.experiment.folder, results.masks):
        assert holders(place, word) == []


def test_the_folder_of_the_scans_is_named_in_nothing_that_is_passed_on(results: Results) -> None:
    experiment = results.experiment
    # What knows where the scans lie, so that the search finds them.
    assert "cases.csv" in holders(experiment.cases_csv.parent, FOLDER)
    for place in (
        *(results.masks, results.bundle, experiment.ensemble_folder),
        *(experiment.folder / "evaluation", experiment.folder / "search"),
    ):
        assert holders(place, FOLDER) == []
    # The report's page quotes the experiment's own file.
    report = experiment.folder / "report"
    assert holders(report, FOLDER) == ["index.html"]
    quoted = html.escape(experiment.config_path.read_text())
    page = (report / "index.html").read_text()
    assert quoted in page and FOLDER not in page.replace(quoted, "")


def test_a_bundle_names_no_case(results: Results) -> None:
    # Where cases are named: by their own names, in scores, pictures and masks.
    assert holders(results.masks, CASE) and holders(results.experiment.folder / "report", CASE)
    assert holders(results.bundle, CASE) == []
    assert holders(results.experiment.ensemble_folder, CASE) == []
    with zipfile.ZipFile(results.bundle) as archive:
        metadata = json.loads(archive.read("configs/metadata.json"))
    assert metadata["strokeseg"]["onnx"]["cases"] >= 1
