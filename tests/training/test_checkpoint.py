"""Members and states on disk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from strokeseg.errors import UserError
from strokeseg.records.config import NetworkConfig
from strokeseg.records.member import MemberRecord
from strokeseg.records.member_header import read_member_record
from strokeseg.training.checkpoint import (
    load_member,
    load_state,
    save_member,
    save_state,
)
from strokeseg.training.network import build_network


@pytest.fixture
def member_path(tmp_path: Path, member_record: Callable[..., MemberRecord]) -> Path:
    path = tmp_path / "best.safetensors"
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=7)
    save_member(path, network, member_record(slice_size=(64, 96), weights_source="hub"))
    return path


def test_a_member_comes_back_with_its_record_and_output(
    member_path: Path, member_record: Callable[..., MemberRecord]
) -> None:
    member = load_member(member_path)
    assert member.record == member_record(slice_size=(64, 96), weights_source="hub")
    assert read_member_record(member_path) == member.record
    original = build_network(
        NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=7
    ).eval()
    slices = torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(member.network(slices), original(slices))
    assert not member.network.training
    assert [path.name for path in member_path.parent.iterdir()] == [member_path.name]


def test_equal_members_give_equal_bytes(
    tmp_path: Path, member_path: Path, member_record: Callable[..., MemberRecord]
) -> None:
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=7)
    again = tmp_path / "again.safetensors"
    save_member(again, network, member_record(slice_size=(64, 96), weights_source="hub"))
    assert again.read_bytes() == member_path.read_bytes()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _drop_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["encoder.conv1.weight"]
    save_file(tensors, path, {"strokeseg": read_member_record(path).model_dump_json()})


def _widen_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["encoder.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    save_file(tensors, path, {"strokeseg": read_member_record(path).model_dump_json()})


def _change_record(path: Path, **changes: object) -> None:
    values = json.loads(read_member_record(path).model_dump_json()) | changes
    save_file(load_file(path), path, {"strokeseg": json.dumps(values)})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "no readable member"),
        (_truncate, "no readable member"),
        (_drop_tensor, "encoder.conv1.weight should have shape"),
        (_widen_tensor, r"should have shape \[64, 2, 7, 7\], got \[64, 3, 7, 7\]"),
        (lambda path: save_file(load_file(path), path), "holds no record"),
        (lambda path: _change_record(path, surprise=1), "unknown key surprise"),
        (lambda path: _change_record(path, axis="oblique"), "axis"),
        (lambda path: _change_record(path, config={"encoder": "nosuch"}), "encoder 'nosuch'"),
        (lambda path: _change_record(path, channels=["DWI"]), "conv1"),
        (lambda path: _change_record(path, channels=[]), "channels"),
        (lambda path: _change_record(path, channels=["DWI"] * 33), "channels"),
        (lambda path: _change_record(path, slice_size=[64, 48]), "multiple of 32"),
        (lambda path: _change_record(path, slice_size=[0, 64]), r"slice_size\.0"),
        (lambda path: _change_record(path, slice_size=[64, 2080]), r"slice_size\.1"),
        (lambda path: _change_record(path, spacing_mm=[1, 1, 0.09]), r"spacing_mm\.2"),
        (lambda path: _change_record(path, spacing_mm=[20.1, 1, 1]), r"spacing_mm\.0"),
        (lambda path: _change_record(path, spacing_mm=[1, float("nan"), 1]), r"spacing_mm\.1"),
        (
            lambda path: save_file(load_file(path), path, {"strokeseg": "[" * 100_000}),
            "holds no record",
        ),
    ],
)
def test_damaged_members_are_refused_by_name(
    member_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(member_path)
    with pytest.raises(UserError, match=words) as caught:
        load_member(member_path)
    assert str(member_path) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, pickle.dumps(print, protocol=2)])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="delete it to start the trial from scratch"):
        load_state(path)


def test_a_truncated_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"epoch": 1, "tensor": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="no readable state"):
        load_state(path)


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path,
    member_record: Callable[..., MemberRecord],
    full_disk: Callable[[], AbstractContextManager[None]],
) -> None:
    writers = {
        "best.safetensors": lambda path: save_member(
            path, torch.nn.Linear(100, 100), member_record()
        ),
        "state.pt": lambda path: save_state(path, {"tensor": torch.ones(10_000)}),
    }
    for name, write in writers.items():
        with full_disk(), pytest.raises(UserError, match=f"{name}: cannot be written") as caught:
            write(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
