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
    *("phantom", "prepare", "search", "measure_leakage", "promote", "evaluate"),
    *("report", "export", "predict", "run"),
)
# Folders and top-level modules, ground first: each may import those below it and nothing beside
# it. Every one may import the package's version.
LEVELS = (
    {"errors"},
    {"process"},
    {"storage", "phantoms"},
    {"imaging"},
    {"records"},
    {"cli", "compute", "reporting", "training"},
    {"ensemble", "preparation", "tuning"},
    {"selection", "evaluation", "exporting", "leakage"},
    {*COMMANDS, "__main__"},
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# The only third-party libraries of a folder, where it has few.
FOREIGN = {
    "errors": set(),
    "process": {"filelock"},
    "storage": {"filelock", "pyarrow", "yaml"},
    "phantoms": {"nibabel", "nilearn", "numpy", "scipy"},
    "imaging": {"PIL", "cc3d", "nibabel", "nilearn", "numpy", "scipy", "pyarrow"},
    "records": {"numpy", "pydantic", "safetensors", "typing_extensions"},
}
# What no command needs before it works, and libraries that come with others.
HEAVY = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch", "kornia", "safetensors"),
    *("ray", "optuna", "grpc", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "jinja2"),
    *("nibabel", "nilearn", "PIL", "tensorboard", "onnx", "onnxruntime", "pydantic", "rich"),
}
# Libraries that belong to other folders.
FORBIDDEN = {
    "compute": {"torch", "optuna"},
    "training": {"ray", "optuna"},
    "preparation": {"torch", "optuna"},
    "reporting": {"torch", "ray", "optuna"},
    "ensemble": {"ray", "optuna"},
}
# Where PyTorch begins for `predict`, which does without it.
TORCH_PREDICTOR = "ensemble.torch_predictor"


def name_of(path: Path) -> str:
    """The dotted name of a file below the package: `imaging.volume`, `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path, *, types: bool = True) -> Iterator[str]:
    """Full dotted names that a file imports, those for its types alone perhaps left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
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
            # `from strokeseg.storage.files import write_text` names the module and something in it.
            found.add(rest if rest in known else rest.rpartition(".")[0] or rest)
    return found - {"__version__"}


def part_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_part_of_the_package_has_its_level() -> None:
    assert {part_of(name_of(path)) for path in FILES} == LEVEL_OF.keys() | {"__init__"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downward_only(path: Path) -> None:
    part = part_of(name_of(path))
    for module in inner_imports(path):
        other = part_of(module)
        if other == part or {part, other} <= {"run", *COMMANDS}:
            assert part in (other, "run"), f"{part} imports the command {other}"
        elif part in LEVEL_OF and other in LEVEL_OF:
            assert LEVEL_OF[other] < LEVEL_OF[part], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_folders_know_only_their_own_libraries(path: Path) -> None:
    part = part_of(name_of(path))
    used = {name.split(".")[0] for name in imports_of(path)} - {"strokeseg"}
    assert not used & FORBIDDEN.get(part, set())
    if part in FOREIGN:
        assert used - sys.stdlib_module_names <= FOREIGN[part]


def test_predict_needs_neither_torch_nor_ray_unless_it_is_asked_to() -> None:
    graph = {name_of(path): path for path in FILES}
    reached, waiting = set(), ["predict"]
    while waiting:
        name = waiting.pop()
        if name in reached or name == TORCH_PREDICTOR:
            continue
        reached.add(name)
        waiting += inner_imports(graph[name])
        # A type's name alone loads nothing.
        used = {full.split(".")[0] for full in imports_of(graph[name], types=False)}
        assert not used & {"torch", "ray", "segmentation_models_pytorch"}, name
    assert {"ensemble.bundle", "ensemble.onnx_predictor"} <= reached


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


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in CONSOLE_COMMANDS)]
)
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
    found = imported_by(
        "import strokeseg.records.config, strokeseg.records.experiment\n"
        "import strokeseg.records.leaderboard"
    )
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
    assert {name.replace("-", "_") for name in CONSOLE_COMMANDS} == set(COMMANDS)
    assert all((ROOT / f"{command}.py").is_file() for command in COMMANDS)
