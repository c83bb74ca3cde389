"""The direction of the imports: commands, tuning, learning, imaging, and never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from strokeseg.__main__ import COMMANDS as CONSOLE_COMMANDS

ROOT = Path(__file__).resolve().parents[1] / "strokeseg"
FILES = sorted(ROOT.rglob("*.py"))

COMMANDS = (
    *("phantom", "prepare", "search", "promote", "evaluate"),
    *("report", "export", "predict", "run"),
)
_LOWEST = {"errors", "files", "yaml_file"}
_SERVICES = {
    *_LOWEST,
    "markdown",
    "phrases",
    "config",
    "imaging",
    "experiment",
    "mirror",
    "leaderboard",
    "leakage",
    "record_types",
}
# What each part of the package may know of the others. Everyone may know the package's own
# version.
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "files": {"errors"},
    "storage": {"errors"},
    "mirror": {*_LOWEST, "storage"},
    "lease": {*_LOWEST, "mirror", "watching"},
    "markdown": set(),
    "phrases": set(),
    "yaml_file": {"errors"},
    "config": {"errors", "yaml_file"},
    "imaging": {*_LOWEST, "child_processes"},
    "learning": {*_LOWEST, "config", "imaging"},
    "experiment": {*_LOWEST, "config", "mirror"},
    "record_types": {"imaging"},
    "leaderboard": {*_LOWEST, "config", "imaging"},
    "gains": {*_LOWEST, "leaderboard"},
    "leakage": {*_LOWEST, "config"},
    "interrupts": {"errors"},
    "living_folder": {"interrupts"},
    "watching": set(),
    "child_processes": set(),
    "joining": {*_LOWEST, "mirror"},
    "ray_session": {*_LOWEST, "interrupts", "joining", "living_folder", "watching"},
    "preparation": {*_SERVICES, "ray_session"},
    "tuning": {*_SERVICES, "child_processes", "interrupts", "learning", "lease", "ray_session"},
    "choosing": {*_SERVICES, "cli", "learning", "preparation", "ray_session"},
    "evaluation": {*_SERVICES, "cli", "summary", "learning", "preparation", "ray_session"},
    "reporting": {*_SERVICES, "gains", "summary", "learning", "preparation"},
    "model_card": {*_SERVICES, "summary", "learning", "preparation"},
    "bundling": {*_SERVICES, "model_card", "summary", "learning", "preparation"},
    "nnunet_dataset": {*_SERVICES, "preparation", "ray_session"},
    "prediction": {*_LOWEST, "config", "imaging", "learning"},
    "segmentation": {*_LOWEST, "cli", "experiment", "imaging", "learning", "prediction"},
    "search_options": {*_SERVICES, "preparation", "tuning"},
    "leakage_measurement": {
        *(*_SERVICES, "cli", "preparation", "ray_session", "search_options", "tuning"),
    },
    "devices": {*_LOWEST, "learning"},
    "summary": {*_SERVICES, "learning", "preparation"},
    "cli": {*_LOWEST, "config", "experiment", "interrupts", "mirror", "watching"},
    "__main__": {"interrupts"},
}
FOREIGN = {
    "errors": set(),
    "yaml_file": {"yaml"},
    "config": {"pydantic"},
    "imaging": {"PIL", "cc3d", "nibabel", "nilearn", "numpy", "scipy", "pyarrow"},
}
# What no command needs before it works, and libraries that come with others.
HEAVY = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch", "kornia", "safetensors"),
    *("ray", "optuna", "grpc", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib"),
    *("nibabel", "nilearn", "PIL", "tensorboard", "onnx", "onnxruntime", "pydantic", "rich"),
}
FORBIDDEN = {
    "mirror": {"torch", "ray", "optuna"},
    "imaging": {"torch", "ray", "optuna"},
    "learning": {"ray", "optuna"},
    "experiment": {"torch", "ray", "optuna"},
    "leaderboard": {"torch", "ray", "optuna"},
    "gains": {"torch", "ray", "optuna"},
    "leakage": {"torch", "ray", "optuna"},
    "preparation": {"torch", "optuna"},
}


def name_of(path: Path) -> str:
    """The dotted name of a file below the package: `imaging.volume`, `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[str]:
    """Full dotted names that a file imports, with the names taken from modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_imports(path: Path) -> set[str]:
    """The package's modules that a file imports, as `imaging.volume`."""
    known = {name_of(file) for file in FILES}
    found = set()
    for name in imports_of(path):
        first, _, rest = name.partition(".")
        if first == "strokeseg" and rest:
            # `from strokeseg.files import write_text` names the module and something in it.
            found.add(rest if rest in known else rest.rpartition(".")[0] or rest)
    return found - {"__version__"}


def part_of(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downward_only(path: Path) -> None:
    part = part_of(name_of(path))
    used = {part_of(module) for module in inner_imports(path)} - {part}
    if part in COMMANDS:
        commands = used & set(COMMANDS)
        assert not commands or part == "run", f"{part} imports the commands {commands}"
        assert "tuning" not in used or part in {"search", "run"}
    else:
        assert part in ALLOWED, f"{part} is new: say in this file what it may import"
        assert used <= ALLOWED[part], f"{name_of(path)} imports {sorted(used - ALLOWED[part])}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_layers_know_only_their_own_libraries(path: Path) -> None:
    part = part_of(name_of(path))
    used = {name.split(".")[0] for name in imports_of(path)} - {"strokeseg"}
    assert not used & FORBIDDEN.get(part, set())
    if part in FOREIGN:
        assert used - sys.stdlib_module_names <= FOREIGN[part]


def test_no_module_imports_itself_through_others() -> None:
    graph = {name_of(path): inner_imports(path) for path in FILES}
    # Raises CycleError, which names the circle.
    assert set(TopologicalSorter(graph).static_order()) >= graph.keys()


def imported_by(statements: str) -> set[str]:
    """The top-level modules that a new process has imported after some statements."""
    code = f"import sys\n{statements}\nprint(' '.join(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return {part_of(name) for name in ended.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_waits_for_nothing_heavy(arguments: list[str]) -> None:
    found = imported_by(f"""
import runpy
sys.argv = {["strokeseg", *arguments]}
try: runpy.run_module("strokeseg", run_name="__main__")
except SystemExit as ending: assert not ending.code
""")
    assert "strokeseg" in found
    assert not found & HEAVY


def test_records_do_not_wait_for_torch_or_ray() -> None:
    found = imported_by("import strokeseg.config, strokeseg.experiment, strokeseg.leaderboard")
    assert not found & (HEAVY - {"pydantic"})


def test_a_search_is_driven_without_torch() -> None:
    found = imported_by("""
import strokeseg.evaluation.cases, strokeseg.preparation.steps
import strokeseg.tuning.search, strokeseg.tuning.importances
""")
    assert {"ray", "optuna"} <= found
    assert not found & {"torch", "torchvision", "timm", "segmentation_models_pytorch", "kornia"}


def test_a_trial_imports_no_more_than_it_uses() -> None:
    found = imported_by("import strokeseg.tuning.trial")
    assert {"ray", "torch"} <= found
    assert not found & {"sklearn", "optuna", "matplotlib", "nilearn", "nibabel"}
    assert not found & {"onnx", "onnxruntime"}


def test_every_command_of_the_console_is_a_module() -> None:
    assert set(CONSOLE_COMMANDS) == set(COMMANDS)
    assert all((ROOT / f"{command}.py").is_file() for command in CONSOLE_COMMANDS)
