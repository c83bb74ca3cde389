"""CSV and JSON files that lie: the manifest, nnU-Net's description, what prepare has written."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from mutations import csv_files, json_files, mutated
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 450
_PREPARED = "runs/searched/prepared"
_SEARCH = "runs/searched/search/axial"
_ENSEMBLE = "runs/searched/ensemble"
_EVALUATION = "runs/searched/evaluation"

# By entrance, the files that it reads, and what share of the inputs it gets: some take their time.
CSV = [
    ("prepare", "searched", "cases.csv", 0.3),
    ("predict", "predicting", "one.csv", 0.5),
    ("search", "searched", f"{_PREPARED}/cases.csv", 0.5),
    ("promote", "searched", f"{_SEARCH}/leaderboard.csv", 0.5),
    ("report", "searched", f"{_EVALUATION}/metrics.csv", 0.3),
]
JSON = [
    ("predict_nnunet", "predicting", "nnunet/dataset.json", 0.5),
    ("predict_again", "predicting", "done/dataset_description.json", 0.5),
    ("search", "searched", f"{_PREPARED}/preparation.json", 0.5),
    ("evaluate", "searched", f"{_PREPARED}/preparation.json", 0.15),
    ("search", "searched", f"{_PREPARED}/splits.json", 0.5),
    ("evaluate", "searched", f"{_ENSEMBLE}/ensemble.json", 0.15),
    ("report", "searched", f"{_ENSEMBLE}/choice.json", 0.3),
    ("evaluate", "searched", f"{_EVALUATION}/scored/2.json", 0.15),
    ("report", "searched", f"{_EVALUATION}/summary.json", 0.3),
]


@pytest.mark.parametrize(("entrance", "workspace_name", "name", "share"), CSV)
def test_every_csv_file_is_taken_or_refused(
    target: Target,
    workspace_of: Callable[[str], Workspace],
    entrance: str,
    workspace_name: str,
    name: str,
    share: float,
) -> None:
    workspace = workspace_of(workspace_name)
    try_inputs(
        target, entrance, workspace, csv_files(name, workspace.good(name)), round(INPUTS * share)
    )


@pytest.mark.parametrize(("entrance", "workspace_name", "name", "share"), JSON)
def test_every_json_file_is_taken_or_refused(
    target: Target,
    workspace_of: Callable[[str], Workspace],
    entrance: str,
    workspace_name: str,
    name: str,
    share: float,
) -> None:
    workspace = workspace_of(workspace_name)
    try_inputs(
        target, entrance, workspace, json_files(name, workspace.good(name)), round(INPUTS * share)
    )


def test_every_sidecar_is_taken_or_refused(
    target: Target, workspace_of: Callable[[str], Workspace]
) -> None:
    workspace = workspace_of("predicting")
    (name,) = (path for path in workspace.names if path.endswith("_mask.json"))
    try_inputs(
        target, "predict_again", workspace, json_files(name, workspace.good(name)), INPUTS // 2
    )


def journals(name: str, good: bytes) -> st.SearchStrategy[Input]:
    """Optuna's journal with other events, other bytes, or events lost and repeated."""
    lines = good.splitlines(keepends=True)

    def joined(chosen: list[int]) -> Input:
        content = b"".join(lines[index] for index in chosen)
        return Input(files={name: content}, note=f"events {chosen}")

    @st.composite
    def other_event(draw: Callable[..., object]) -> Input:
        index = draw(st.integers(0, len(lines) - 1))
        (event,) = draw(json_files(name, lines[index])).files.values()
        content = b"".join([*lines[:index], event + b"\n", *lines[index + 1 :]])
        return Input(files={name: content}, note=f"event {index} is {event[:200]!r}")

    return st.one_of(
        other_event(),
        other_event(),
        st.lists(st.integers(0, len(lines) - 1), max_size=len(lines)).map(joined),
        mutated(good).map(lambda content: Input(files={name: content}, note="other bytes")),
    )


def test_every_journal_is_taken_or_refused(
    target: Target, workspace_of: Callable[[str], Workspace]
) -> None:
    workspace = workspace_of("searched")
    name = f"{_SEARCH}/journal.log"
    assert json.loads(workspace.good(name).splitlines()[0])
    try_inputs(target, "search", workspace, journals(name, workspace.good(name)), INPUTS)
