"""YAML files that lie: the experiment and the search space."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from mutations import VALUES, mutated, mutated_values
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 800


def aliases(levels: int, width: int) -> str:
    """A few lines of anchors that stand for width ** levels values (a billion laughs)."""
    lines = ["l0: &l0 [lol]"]
    for level in range(1, levels):
        names = ", ".join([f"*l{level - 1}"] * width)
        lines.append(f"l{level}: &l{level} [{names}]")
    return "\n".join(lines) + "\n"


def merges(levels: int, width: int) -> str:
    """The same of mappings that are merged into each other."""
    lines = ["l0: &l0 {a: 1, b: 2}"]
    for level in range(1, levels):
        names = ", ".join([f"*l{level - 1}"] * width)
        lines.append(f"l{level}: &l{level} {{<<: [{names}], k{level}: 1}}")
    return "\n".join(lines) + "\n"


TRAPS = [
    *("", "~", "[]", "- 1", "a: b: c", "a: 'x", "\t", "--- 1\n--- 2", "%YAML 9.9\n---\na: 1"),
    *("!!python/object/apply:os.system ['touch {folder}/../ran']", "data: !!python/name:os.system"),
    *("data: !!python/object/new:os.system [true]", "data: !!python/module:os", "data: !!binary x"),
    *("data: !!python/tuple [1]", "data: !!set {a, b}", "data: !!omap [a: 1]", "data: !local 1"),
    *("data: &a [*a]", "data: &a {b: *a}", "&a a: *a", "? [1, 2]\n: 3", "? {a: 1}\n: 3"),
    *("data: 2024-13-45", "data: 1:60:99999999999999999999", "data: 0b" + "1" * 5000),
    *("data: " + "9" * 5000, "data: 1e999999", "data: .nan", "data: 0o99", "data: 190:20:30"),
    *("data: !!float x", "data: !!int x", "data: !!int ''", "data: !!timestamp x", "<<: 1"),
    *("data: !!bool x", "data: !!null x", "data: !!int []", "data: !!map []", "data: !!float ''"),
    *(
        "[" * 20_000,
        "{a: " * 5_000,
        "- " * 3_000 + "1",
        "a:\n" + "".join(" " * i + "a:\n" for i in range(1, 500)),
    ),
    *(aliases(30, 10), aliases(9, 9), merges(25, 4), merges(8, 8)),
    *("\n".join(f"k{i}: 1" for i in range(20_000)), "a: " + "x" * 500_000, "# " + "x" * 5_000_000),
    *("\ufeffdata: 1", "data: \x00", "data: \x85", "data: \ud7ff", "base: /dev/zero", "base: ."),
    *("base: experiment.yaml", "base: space.yaml", "base: ../../../../../etc/passwd", "base: ''"),
]
_NAMES = ("nan", "encoder", "learning_rate", "batch_size", "pretrained", "focal_weight", "epochs")


def _dimension() -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["low", "high", "log", "choices", "value", "when", "otherwise"])
    values = st.one_of(
        VALUES,
        st.sampled_from([1e-4, 1, 32, "resnet18", "tu-test_resnet", "tu-vit_giant_patch14_224"]),
        st.lists(st.sampled_from(["resnet18", "tu-test_resnet", 1, 0.5, True]), max_size=3),
        st.dictionaries(st.sampled_from(_NAMES), VALUES, max_size=2),
    )
    return st.dictionaries(keys, values, max_size=4)


def dumped(values: Any) -> bytes:
    """Values as YAML, as far as they can be written."""
    return yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass")


def files(name: str, good: bytes, more: st.SearchStrategy[bytes]) -> st.SearchStrategy[Input]:
    """A YAML file with other values or other bytes."""
    values = yaml.safe_load(good)
    contents = st.one_of(
        mutated_values(values).map(dumped),
        mutated_values(values).map(dumped),
        mutated(good),
        more,
    )
    return contents.map(lambda content: Input(files={name: content}, note=name))


def traps(name: str, good: bytes) -> list[Input]:
    """Files that are built to do harm, alone and after what is good."""
    contents = [before + trap.encode() for before in (b"", good) for trap in TRAPS]
    return [Input(files={name: content}, note=name) for content in contents]


def spaces(good: bytes) -> st.SearchStrategy[bytes]:
    """Search spaces of a good form, but with dimensions that may make no sense."""

    def with_dimension(name: str, dimension: Any, first: Any) -> bytes:
        values = copy.deepcopy(yaml.safe_load(good))
        values["parameters"][name] = dimension
        values["first"] = first
        return dumped(values)

    points = st.lists(st.dictionaries(st.sampled_from(_NAMES), VALUES, max_size=2), max_size=2)
    return st.builds(with_dimension, st.sampled_from(_NAMES), _dimension(), points)


def test_search_takes_or_refuses_every_space(
    target: Target, workspace_of: Callable[[str], Workspace]
) -> None:
    workspace = workspace_of("untried")
    good = workspace.good("space.yaml")
    made = files("space.yaml", good, spaces(good))
    try_inputs(target, "search_from_scratch", workspace, made, INPUTS, traps("space.yaml", good))


def test_prepare_takes_or_refuses_every_experiment(
    target: Target, workspace_of: Callable[[str], Workspace]
) -> None:
    workspace = workspace_of("searched")
    good = workspace.good("experiment.yaml")
    made = files("experiment.yaml", good, mutated(good))
    harm = traps("experiment.yaml", good)
    try_inputs(target, "prepare", workspace, made, INPUTS // 2, harm)
