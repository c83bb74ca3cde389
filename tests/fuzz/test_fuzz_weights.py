"""Weights that lie: safetensors with other headers, and pickles that would run code."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from mutations import json_text, mutated, mutated_values
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 400
_NAME = "weights/tu-test_resnet"


class _Plant:
    """What would write a file, if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


def traps(planted: Path) -> list[bytes]:
    """Files of torch, old and new, that would run code, or hold something else than tensors."""
    holds = [_Plant(planted), {"state_dict": _Plant(planted)}, {"a": [_Plant(planted)]}]
    holds += [{"a": 1}, [torch.zeros(1)], {}, {1: torch.zeros(1)}, torch.zeros(2), None]
    holds += [{"a": torch.zeros(1).expand(1 << 40)}, {"state_dict": {"model.x": torch.zeros(1)}}]
    contents = []
    for value in holds:
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(value, file, _use_new_zipfile_serialization=zipped)
            contents.append(file.getvalue())
    return contents


@st.composite
def headers(draw: Callable[..., Any], good: bytes) -> bytes:
    """A safetensors file with other values in its header, or another length of it."""
    length = struct.unpack_from("<Q", good)[0]
    values = json.loads(good[8 : 8 + length])
    if draw(st.integers(0, 3)) == 0:
        length_field = draw(st.sampled_from([0, 1, length - 1, length + 1, 1 << 31, (1 << 64) - 1]))
        return struct.pack("<Q", length_field) + good[8:]
    header = json_text(draw(mutated_values(values)))
    return struct.pack("<Q", len(header)) + header + good[8 + length :]


@st.composite
def inner_files(draw: Callable[..., Any], good: bytes) -> bytes:
    """A zipped .pth, one of its entries changed, missing, or packed to burst."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        # Half of all changes are made to the pickle.
        pickle = next(name for name in names if name.endswith("data.pkl"))
        chosen = draw(st.one_of(st.just(pickle), st.sampled_from(names)))
        for name in names:
            content = old.read(name)
            if name != chosen:
                new.writestr(name, content)
                continue
            match draw(st.sampled_from(["bytes", "bytes", "bytes", "lose", "bomb"])):
                case "bytes":
                    new.writestr(name, draw(mutated(content)))
                case "bomb":
                    new.writestr(name, bytes(1 << 26), zipfile.ZIP_DEFLATED)
    return file.getvalue()


@pytest.mark.parametrize("form", ["safetensors", "zipped.pth", "legacy.pth"])
def test_weights_are_taken_or_refused(
    target: Target, workspace_of: Callable[[str], Workspace], tmp_path: Path, form: str
) -> None:
    workspace = workspace_of("untried")
    safe = form == "safetensors"
    good = workspace.good(f"{_NAME}.{form}" if safe else f"forms/{form}")
    planted = tmp_path / "planted"
    kinds = {
        "safetensors": [headers(good)],
        "zipped.pth": [inner_files(good), st.sampled_from(traps(planted))],
        "legacy.pth": [mutated(good[:4000]).map(lambda start: start + good[4000:])],
    }
    name = f"{_NAME}.{'safetensors' if safe else 'pth'}"

    def files(content: bytes) -> Input:
        others = {} if safe else {f"{_NAME}.safetensors": None}
        return Input(files={name: content, **others}, note=form)

    inputs = st.one_of(mutated(good), *kinds[form]).map(files)
    try_inputs(target, "search_pretrained", workspace, inputs, INPUTS)
    assert not planted.exists()
