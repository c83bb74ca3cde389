"""Every YAML file that ships loads, and opens with its purpose, cost and launch line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from strokeseg.__main__ import COMMANDS
from strokeseg.imaging.slices import AXES
from strokeseg.records.config import load_experiment
from strokeseg.records.experiment import open_experiment
from strokeseg.tuning.space import Space

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
# A shell script's head is checked like theirs.
LAUNCH_FILES = sorted(
    path for path in (ROOT / "cluster").iterdir() if path.suffix in {".yaml", ".sh", ""}
)
LAUNCHERS = {"ray", "kubectl", "sbatch", "docker"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def head_of(path: Path) -> str:
    """The comment that a file opens with, as one line; a script's interpreter aside."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#!"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def test_there_are_experiments_and_a_space_for_every_axis() -> None:
    assert {path.parent.name for path in EXPERIMENTS} >= {"demo"}
    assert {path.stem for path in SPACES} >= {*AXES, "base", "demo"}


def launch_of(path: Path) -> list[str]:
    """Check that a file's head has its three parts in order, and return the words of the last."""
    head = head_of(path)
    positions = [head.find(word) for word in ("Purpose:", "Cost:", "Launch:")]
    assert positions[0] == 0 and positions == sorted(positions) and -1 not in positions
    return head[positions[2] :].split()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=relative)
def test_a_launch_file_opens_with_its_purpose_cost_and_launch(path: Path) -> None:
    words = [word for word in launch_of(path)[1:] if "=" not in word]
    assert words[0] in {*LAUNCHERS, relative(path)}, words
    assert relative(path) in words, words


@pytest.mark.parametrize("path", [*EXPERIMENTS, *SPACES], ids=relative)
def test_a_file_opens_with_its_purpose_cost_and_launch(path: Path) -> None:
    launch = launch_of(path)
    assert launch[1:3] == ["make", "demo"] or (
        launch[1] == "strokeseg" and launch[2] in COMMANDS
    ), launch


@pytest.mark.parametrize("path", EXPERIMENTS, ids=relative)
def test_an_experiment_loads_and_its_space_is_there(path: Path, tmp_path: Path) -> None:
    load_experiment(path)
    experiment = open_experiment(str(path), str(tmp_path))
    for axis in AXES:
        assert experiment.space_path(axis).is_file()


@pytest.mark.parametrize("path", SPACES, ids=relative)
def test_a_space_loads(path: Path, shipped_space: Callable[[Path], Space]) -> None:
    assert shipped_space(path).dimensions
