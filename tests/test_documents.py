"""What the documents say of the tree is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_imports import LEVELS

CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "strokeseg"
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("docs/architecture.md", "docs/reliability.md", "benchmarks/README.md", "cluster/README.md"),
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_module_that_a_document_names_exists(name: str) -> None:
    named = re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)", (CHECKOUT / name).read_text("utf-8"))
    missing = [
        path for path in named if not any((at / path).exists() for at in (CHECKOUT, PACKAGE))
    ]
    assert not missing


def test_the_architecture_lists_every_folder_and_every_level() -> None:
    folders = set(re.findall(r"^\| `([a-z]+)/` \|", ARCHITECTURE, flags=re.MULTILINE))
    assert folders == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    listed = re.findall(r"^\d+\. (.*)$", ARCHITECTURE, flags=re.MULTILINE)
    *levels, commands = [set(re.findall(r"`([a-z]+)`", line)) for line in listed]
    assert commands == set()
    assert levels == list(LEVELS[:-1])


def test_the_places_of_one_change_are_at_most_three() -> None:
    section = ARCHITECTURE.partition("## Where do I add")[2].partition("##")[0]
    rows = re.findall(r"^\| (?:a|an) [^|]*\| ([^|]*) \|$", section, flags=re.MULTILINE)
    assert len(rows) == 8
    assert all(row.count(".py`") <= 3 for row in rows)
