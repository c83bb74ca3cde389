"""How good files become bad ones: strategies of hypothesis.

A *mutation* changes bytes without a thought for what they mean; those of JSON, YAML and CSV
change values, and leave the form intact, so that they get deeper into what reads them.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from workspace import Input

_MOST_EDITS = 4
_LONG = 200
# Numbers at which programs go wrong.
INTEGERS = st.one_of(
    st.sampled_from([-(1 << 63), -(1 << 31), -32768, -1, 0, 1, 2, 7, 255, 32767, 65535]),
    st.sampled_from([1 << 31, (1 << 32) - 1, 1 << 53, (1 << 63) - 1, 1 << 64, 10**30]),
    st.integers(-10, 300),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-45, 1e-30, 1e-3, 0.5, 1e3, 1e6, 1e30, 3e38, 1e300, 1.7e308]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -1.0, -1e30]),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(
        [
            *("", " ", ".", "..", "/", "../../../etc/passwd", "/etc/passwd", "C:\\x", "a/b", "~"),
            *("nan", "inf", "-1", "1e999", "0x10", "\0", "a\nb", "\ud800", "\u202e", "ß" * 300),
            *("T1", "axial", "test", "tu-test_resnet", "tu-test_vit", "resnet18", "COMPLETE"),
            *("scans/1_T1.nii.gz", "experiment.yaml", "/dev/zero", "/proc/self/mem", "{axis}"),
            "x" * 5000,
        ]
    ),
    st.text(max_size=12),
)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def mutated(draw: Callable[..., Any], good: bytes, start: int = 0) -> bytes:
    """A few edits of bytes, all of them from `start` on."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, _MOST_EDITS))):
        place = draw(st.integers(min(start, len(content)), len(content)))
        length = draw(st.sampled_from([1, 1, 2, 4, 8, 64, 1000]))
        match draw(st.sampled_from(["set", "flip", "insert", "cut", "end", "repeat", "move"])):
            case "set":
                content[place : place + length] = draw(st.binary(min_size=1, max_size=8))
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                content[place:place] = draw(st.binary(min_size=1, max_size=8)) * length
            case "cut":
                del content[place : place + length]
            case "end":
                del content[place:]
            case "repeat":
                content[place:place] = content[place : place + length]
            case "move":
                other = draw(st.integers(min(start, len(content)), len(content)))
                content[other : other + length] = content[place : place + length]
    return bytes(content)


@st.composite
def mutated_values(draw: Callable[..., Any], good: Any) -> Any:
    """Plain values of which a few are others, missing, or in excess."""
    values = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(values))
        if not places:
            return draw(VALUES)
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "swap", "long"])):
            case "replace":
                holder[key] = draw(VALUES)
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(TEXTS)] = draw(VALUES)
            case "add":
                holder.insert(0, draw(VALUES))
            case "swap":
                other, other_key = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(
                    other.get(other_key) if isinstance(other, dict) else None
                )
            case "long":
                holder[key] = [holder[key]] * draw(st.sampled_from([2, 50, 1000]))
    return values


def _places(values: Any) -> Any:
    """Every place in nested values, as its container and key."""
    keys: Sequence[Any] = ()
    if isinstance(values, dict):
        keys = list(values)
    elif isinstance(values, list):
        keys = range(len(values))
    for key in keys:
        yield values, key
        yield from _places(values[key])


def json_text(values: Any) -> bytes:
    """Values as JSON, numbers that are none included."""
    return json.dumps(values).encode(errors="surrogatepass")


JSON_TRAPS = [
    *(b"", b"null", b"[]", b"{}", b"0", b'"x"', b"NaN", b"\xff\xfe", b"\0" * 64),
    *(b"[" * 100_000, b'{"a":' * 50_000, b"[" * 900 + b"]" * 900, b"1" * 10_000, b"1e99999"),
    b'{"a": 1, "a": 2}',
]


def json_files(name: str, good: bytes) -> SearchStrategy[Input]:
    """A JSON file with other values, other bytes, or nothing of what it should hold."""
    values = json.loads(good)
    return st.one_of(
        mutated_values(values).map(lambda new: _input(name, json_text(new), "other values")),
        mutated_values(values).map(lambda new: _input(name, json_text(new), "other values")),
        mutated(good).map(lambda content: _input(name, content, "other bytes")),
        st.sampled_from(JSON_TRAPS).map(lambda content: _input(name, content, "a trap")),
    )


@st.composite
def _csv_content(draw: Callable[..., Any], good: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(good.decode())))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        cell = draw(st.integers(0, max(0, len(rows[row]) - 1)))
        match draw(st.sampled_from(["cell", "cell", "number", "remove", "add", "lose", "repeat"])):
            case "cell" if rows[row]:
                rows[row][cell] = draw(TEXTS)
            case "number" if rows[row]:
                rows[row][cell] = str(draw(st.one_of(INTEGERS, FLOATS)))
            case "remove" if rows[row]:
                del rows[row][cell]
            case "add":
                rows[row].insert(cell, draw(TEXTS))
            case "lose" if len(rows) > 1:
                del rows[row]
            case "repeat":
                rows.insert(row, list(rows[row]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


CSV_TRAPS = [
    *(b"", b"\n", b",\n", b"\xff\xfe\x00", b'"', b"\0\n\0", b"case\n" * 3, b"a" * 200_000),
    b"case,T1,DWI,mask\n" + b"x," * 10_000 + b"\n",
]


def csv_files(name: str, good: bytes) -> SearchStrategy[Input]:
    """A CSV file with other cells, other bytes, or nothing of what it should hold."""
    return st.one_of(
        _csv_content(good).map(lambda content: _input(name, content, "other cells")),
        _csv_content(good).map(lambda content: _input(name, content, "other cells")),
        mutated(good).map(lambda content: _input(name, content, "other bytes")),
        st.sampled_from(CSV_TRAPS).map(lambda content: _input(name, content, "a trap")),
    )


def _input(name: str, content: bytes, note: str) -> Input:
    return Input(files={name: content}, note=f"{name}: {note}")
