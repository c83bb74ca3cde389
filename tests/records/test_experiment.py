"""Opening an experiment: found by name, path or folder; storage that can be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from strokeseg.errors import UserError
from strokeseg.records.experiment import code_version, open_experiment, trial_state, trial_weights

READS = "data: {path: cases}\n"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with one experiment of its own."""
    folder = tmp_path / "experiments" / "stroke"
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(READS)
    (folder / "other.yaml").write_text(READS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("stroke", "stroke"),
        ("experiments/stroke", "stroke"),
        ("experiments/stroke/", "stroke"),
        ("experiments/stroke/experiment.yaml", "stroke"),
        ("experiments/stroke/other.yaml", "other"),
    ],
)
def test_an_experiment_is_found_by_name_folder_or_file(
    workplace: Path, given: str, name: str
) -> None:
    experiment = open_experiment(given, "runs")
    assert experiment.name == name
    assert experiment.folder == workplace / "runs" / name
    assert experiment.folder.is_dir() and not list(experiment.folder.iterdir())
    assert experiment.config_path.parent == workplace / "experiments" / "stroke"


def test_the_demo_is_found_from_any_folder(workplace: Path) -> None:
    experiment = open_experiment("demo", "runs")
    assert experiment.config.data.phantom is not None
    assert experiment.data_path == workplace / "runs" / "demo" / "cases"


def test_an_unknown_name_lists_the_known_ones(workplace: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_experiment("strok", "runs")
    message = str(caught.value)
    assert message.startswith("--experiment strok:") and "\n" not in message
    known = message.split("known are ")[1].split(", ")
    # Its own, and those that lie beside the package.
    assert "stroke" in known and "demo" in known and known == sorted(known)
    assert not (workplace / "runs").exists()


def test_paths_in_the_file_start_at_the_file(workplace: Path) -> None:
    experiment = open_experiment("stroke", "runs")
    folder = workplace / "experiments" / "stroke"
    assert experiment.data_path == folder / "cases"
    assert experiment.space_path("axial").resolve() == workplace / "search_spaces" / "axial.yaml"


def test_data_of_the_command_line_starts_at_the_working_folder(workplace: Path) -> None:
    assert open_experiment("stroke", "runs", "here").data_path == workplace / "here"


def test_simulated_cases_cannot_be_replaced(workplace: Path) -> None:
    with pytest.raises(UserError, match="--data: .* simulates its cases"):
        open_experiment("demo", "runs", "here")


def test_storage_below_a_regular_file_cannot_be_written(workplace: Path) -> None:
    (workplace / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot be written") as caught:
        open_experiment("stroke", str(workplace / "taken" / "runs"))
    assert str(workplace / "taken" / "runs") in str(caught.value)
    assert (workplace / "taken").read_text() == "a file"


def test_a_storage_that_no_file_system_knows_is_refused(workplace: Path) -> None:
    with pytest.raises(UserError, match="nonsense://bucket/runs/stroke: the storage cannot be"):
        open_experiment("stroke", "nonsense://bucket/runs")
    assert [path.name for path in workplace.iterdir()] == ["experiments"]


def test_an_experiment_at_a_uri_has_a_working_copy(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STROKESEG_WORK", str(workplace / "work"))
    experiment = open_experiment("stroke", f"file://{workplace}/mounted")
    assert experiment.folder.is_relative_to(workplace / "work")
    assert experiment.remote_copy is not None
    assert experiment.remote_copy.uri == f"file://{workplace}/mounted/stroke"


def test_a_wrong_setting_names_the_file_and_leaves_no_folder(workplace: Path) -> None:
    path = workplace / "experiments" / "stroke" / "other.yaml"
    path.write_text(READS + "serch: {}\n")
    with pytest.raises(UserError, match="unknown key serch") as caught:
        open_experiment(str(path), "runs")
    assert str(path) in str(caught.value)
    assert not (workplace / "runs").exists()


def test_everything_lies_in_the_experiments_folder(workplace: Path) -> None:
    experiment = open_experiment("stroke", "runs")
    paths = {
        experiment.leaderboard_csv("axial"): "search/axial/leaderboard.csv",
        experiment.journal("coronal"): "search/coronal/journal.log",
        experiment.splits_json: "prepared/splits.json",
        experiment.cases_csv: "prepared/cases.csv",
        experiment.metrics_csv("test"): "evaluation/metrics.csv",
        experiment.summary_json("test"): "evaluation/summary.json",
        experiment.bundle_zip: "bundle.zip",
        trial_weights(experiment.trials_folder("axial"), 7): (
            "search/axial/trials/0007/best.safetensors"
        ),
        trial_state(experiment.trials_folder("axial"), 7): "search/axial/trials/0007/state.pt",
    }
    for path, name in paths.items():
        assert path == experiment.folder / name


def test_the_code_version_begins_with_the_packages() -> None:
    assert code_version().startswith("0.1.0")
