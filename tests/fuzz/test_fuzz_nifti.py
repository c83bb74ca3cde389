"""NIfTI files that lie: headers, bodies and compression."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import strategies as st
from mutations import mutated
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 1000
_HEADER_BYTES = 352
# Where a header's fields lie, and how each of their numbers is stored.
_FIELDS = {
    "sizeof_hdr": (0, "i", 1),
    "dim": (40, "h", 8),
    "intent_code": (68, "h", 1),
    "datatype": (70, "h", 1),
    "bitpix": (72, "h", 1),
    "pixdim": (76, "f", 8),
    "vox_offset": (108, "f", 1),
    "scl_slope": (112, "f", 1),
    "scl_inter": (116, "f", 1),
    "xyzt_units": (123, "B", 1),
    "qform_code": (252, "h", 1),
    "sform_code": (254, "h", 1),
    "quaternion": (256, "f", 3),
    "qoffset": (268, "f", 3),
    "srow": (280, "f", 12),
    "extension": (348, "B", 4),
}
_SHORTS = st.sampled_from([-32768, -1, 0, 1, 2, 3, 4, 7, 8, 12, 16, 64, 128, 256, 512, 32767])
_SINGLES = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-45, 1e-30, 1e-3, 0.05, 1.0, 50.0, 1e4, 1e30, 3e38]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -1.0, 352.0, 353.5, 1e9]),
    st.floats(width=32),
)
_NUMBERS = {"h": _SHORTS, "i": _SHORTS, "B": st.integers(0, 255), "f": _SINGLES}


@st.composite
def headers(draw: Callable[..., Any], good: bytes) -> bytes:
    """A file with a few of its header's numbers changed, perhaps in the other byte order."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        field = draw(st.sampled_from(sorted(_FIELDS)))
        offset, kind, count = _FIELDS[field]
        if field == "srow" and draw(st.booleans()):
            # An sform is looked at only when its code says so.
            struct.pack_into("<h", content, _FIELDS["sform_code"][0], draw(st.integers(1, 4)))
        for index in draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count)):
            place = offset + index * struct.calcsize(kind)
            struct.pack_into(f"<{kind}", content, place, draw(_NUMBERS[kind]))
    if draw(st.integers(0, 9)) == 0:
        for offset, kind, count in _FIELDS.values():
            values = struct.unpack_from(f"<{count}{kind}", content, offset)
            struct.pack_into(f">{count}{kind}", content, offset, *values)
    return bytes(content)


@st.composite
def bodies(draw: Callable[..., Any], good: bytes) -> bytes:
    """A file with other voxels: numbers that are none, noise to the border, or nothing."""
    content = bytearray(good)
    count = (len(good) - _HEADER_BYTES) // 4
    match draw(st.sampled_from(["some", "all", "noise", "bytes"])):
        case "some":
            for index in draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)):
                struct.pack_into("<f", content, _HEADER_BYTES + 4 * index, draw(_SINGLES))
        case "all":
            content[_HEADER_BYTES:] = struct.pack("<f", draw(_SINGLES)) * count
        case "noise":
            content[_HEADER_BYTES:] = draw(st.randoms(use_true_random=False)).randbytes(4 * count)
        case "bytes":
            return draw(mutated(bytes(content), start=_HEADER_BYTES))
    return bytes(content)


def bomb(good: bytes, zeros: int) -> bytes:
    """A small compressed file that unpacks to a good one and many zeros after it."""
    return gzip.compress(good) + _packed_zeros() * (min(zeros, 1 << 33) >> 24)


@cache
def _packed_zeros() -> bytes:
    return gzip.compress(bytes(1 << 24), 9)


def promise(good: bytes, side: int) -> bytes:
    """A small compressed file whose header and content are both huge."""
    content = bytearray(good[:_HEADER_BYTES])
    struct.pack_into("<8h", content, 40, 3, side, side, side, 1, 1, 1, 1)
    return bomb(bytes(content), 4 * side**3 + (1 << 24))


@st.composite
def compressions(draw: Callable[..., Any], good: bytes) -> bytes:
    """A compressed file, damaged, cut, put together of several, or packed to burst."""
    packed = gzip.compress(good, 1)
    match draw(st.sampled_from(["bytes", "bytes", "several", "garbage", "bomb", "promise"])):
        case "several":
            cut = draw(st.integers(0, len(good)))
            return gzip.compress(good[:cut]) + gzip.compress(good[cut:])
        case "garbage":
            return packed + draw(st.binary(min_size=1, max_size=64))
        case "bomb":
            return bomb(good, draw(st.sampled_from([1 << 24, 1 << 28, 1 << 31, 1 << 33])))
        case "promise":
            return promise(good, draw(st.sampled_from([100, 700, 2000, 32767])))
        case _:
            return draw(mutated(packed))


def _files(name: str) -> Callable[[bytes], Input]:
    return lambda content: Input(files={f"scans/{name}.nii.gz": content}, note=name)


@pytest.mark.parametrize("damage", [headers, bodies, compressions, mutated])
def test_predict_takes_or_refuses_every_image(
    target: Target, workspace_of: Callable[[str], Workspace], damage: Any
) -> None:
    workspace = workspace_of("predicting")
    good = gzip.decompress(workspace.good("scans/1_T1.nii.gz"))
    # Other voxels are mostly taken, and segmented, which takes its time.
    count = INPUTS // 6 if damage is bodies else INPUTS
    try_inputs(target, "predict", workspace, damage(good).map(_files("1_T1")), count)


@pytest.mark.parametrize("name", ["1_T1", "1_mask"])
def test_prepare_takes_or_refuses_every_image_and_mask(
    target: Target, workspace_of: Callable[[str], Workspace], name: str
) -> None:
    workspace = workspace_of("searched")
    good = gzip.decompress(workspace.good(f"scans/{name}.nii.gz"))
    damages = st.one_of(headers(good), bodies(good), compressions(good), mutated(good))
    try_inputs(target, "prepare", workspace, damages.map(_files(name)), INPUTS // 6)
