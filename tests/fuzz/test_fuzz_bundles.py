"""Bundles that lie: other bytes, other names, links, sizes, and what lies in true checksums."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from mutations import INTEGERS, json_text, mutated, mutated_values
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 100
_CHECKSUMS, _RECORD = "checksums.json", "configs/ensemble.json"
_NAMES = st.sampled_from(
    [
        *("../out-of-it", "/tmp/out-of-it", "a/../../b", "models/../../x", "C:\\x", "..\\x", "."),
        *("", "a//b", "./a", "a/", "x" * 4000, "a\nb", "models", "configs/ensemble.json", "\u202e"),
        *("docs/README.md", "models/new.safetensors", "models/new.onnx", "checksums.json"),
    ]
)
_LINK, _DEVICE = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666


def unpacked(good: bytes) -> dict[str, bytes]:
    """Contents of a bundle by name."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(contents: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """A .zip of entries, whatever they are called."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as archive:
        for info, content in contents:
            archive.writestr(info, content)
    return file.getvalue()


@st.composite
def entries(draw: Callable[..., Any], good: bytes) -> bytes:
    """A bundle with an entry more, less, renamed, linked or packed."""
    made = [(zipfile.ZipInfo(name), content) for name, content in unpacked(good).items()]
    index = draw(st.integers(0, len(made) - 1))
    info, content = made[index]
    match draw(st.sampled_from(["more", "less", "name", "kind", "pack", "bomb", "twice", "true"])):
        case "more":
            made.append((zipfile.ZipInfo(draw(_NAMES)), b"#!/bin/sh\n"))
        case "less":
            del made[index]
        case "name":
            made[index] = (zipfile.ZipInfo(draw(_NAMES)), content)
        case "kind":
            info.create_system, info.external_attr = (
                3,
                draw(st.sampled_from([_LINK, _DEVICE])) << 16,
            )
            made[index] = (info, b"/etc/passwd")
        case "pack":
            info.compress_type = draw(st.sampled_from([8, 12, 14]))
        case "bomb":
            info.compress_type = zipfile.ZIP_DEFLATED
            made[index] = (info, bytes(1 << 27))
        case "twice":
            made.append(made[index])
        case "true":
            # Listed with its true checksum: only its name is wrong.
            name, files = draw(_NAMES), unpacked(good)
            files[name] = b"#!/bin/sh\n"
            return truly(files)
    return packed(made)


@st.composite
def directories(draw: Callable[..., Any], good: bytes) -> bytes:
    """A bundle whose list of entries has another number or byte somewhere."""
    content = bytearray(good)
    start = good.index(b"PK\1\2")
    for _ in range(draw(st.integers(1, 3))):
        form = draw(st.sampled_from(["B", "<H", "<I"]))
        place = draw(st.integers(start, len(content) - struct.calcsize(form)))
        most = (1 << 8 * struct.calcsize(form)) - 1
        number = draw(st.one_of(st.sampled_from([0, 1, most >> 1, most]), st.integers(0, most)))
        struct.pack_into(form, content, place, number)
    return bytes(content)


def truly(contents: dict[str, bytes]) -> bytes:
    """A bundle whose checksums are those of its contents: what one gets who wants to do harm."""
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
        if name != _CHECKSUMS
    }
    checksums = json.dumps({"format": 2, "files": files}).encode(errors="surrogatepass")
    made = {**contents, _CHECKSUMS: checksums}
    return packed([(zipfile.ZipInfo(name), content) for name, content in made.items()])


@st.composite
def harmful(draw: Callable[..., Any], good: bytes, ending: str) -> bytes:
    """A bundle with another record, network or list, and true checksums for it."""
    contents = unpacked(good)
    match draw(st.sampled_from(["record", "network", "network", "checksums"])):
        case "record":
            contents[_RECORD] = json_text(draw(mutated_values(json.loads(contents[_RECORD]))))
        case "network":
            name = draw(st.sampled_from([name for name in contents if name.endswith(ending)]))
            contents[name] = draw(mutated(contents[name][:3000])) + contents[name][3000:]
        case "checksums":
            values = json.loads(contents[_CHECKSUMS])
            file = draw(st.sampled_from(sorted(values["files"])))
            values["files"][file]["bytes"] = draw(INTEGERS)
            contents[_CHECKSUMS] = json_text(
                draw(st.one_of(st.just(values), mutated_values(values)))
            )
            return packed([(zipfile.ZipInfo(name), content) for name, content in contents.items()])
    return truly(contents)


@pytest.mark.parametrize("damage", [mutated, entries, directories, "safetensors", "onnx"])
def test_bundles_are_taken_or_refused(
    target: Target, workspace_of: Callable[[str], Workspace], damage: Any
) -> None:
    workspace = workspace_of("predicting")
    good = workspace.good("bundle.zip")
    make = partial(harmful, ending=f".{damage}") if isinstance(damage, str) else damage
    entrance = "open_onnx_bundle" if damage == "onnx" else "open_torch_bundle"
    inputs = make(good).map(lambda content: Input(files={"bundle.zip": content}, note="bundle"))
    try_inputs(target, entrance, workspace, inputs, INPUTS)
