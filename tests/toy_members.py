"""Fixtures: toy slices, members and ensembles for the tests of several folders."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from strokeseg.exporting.onnx_export import onnx_bytes
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.records.ensemble import EnsembleRecord, write_ensemble
from strokeseg.records.member import MemberRecord
from strokeseg.training.checkpoint import load_member, save_member
from strokeseg.training.network import build_network
from strokeseg.training.slice_set import SliceSet, slices_in_memory

SEQUENCES = ("DWI", "FLAIR")
SMALL = TrialConfig(encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread, which gives equal numbers and is faster on toys."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """Let no file grow beyond 1000 bytes inside a `with`.

    No longer than that: pytest writes its own progress between a test's body and the end of its
    fixtures, and its output may be a file.
    """

    @contextmanager
    def limit() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def toy_slices() -> Callable[..., SliceSet]:
    """Make slices of noise (sd 1) where half of a case's slices show a bright square."""

    def make(cases: int = 2, slices: int = 12, seed: int = 0) -> SliceSet:
        generator = np.random.default_rng(seed)
        images = generator.normal(size=(cases, slices, 2, 32, 32)).astype(np.float16)
        masks = np.zeros((cases, slices, 32, 32), dtype=np.uint8)
        for case in range(cases):
            for row in range(0, slices, 2):
                top, left = generator.integers(4, 18, size=2)
                masks[case, row, top : top + 10, left : left + 10] = 1
        images += 3 * masks[:, :, None]
        names = np.repeat([f"case{case}" for case in range(cases)], slices)
        return slices_in_memory(images, masks, names)

    return make


def _member_record(axis: str = "axial", trial: int = 0, **changes: object) -> MemberRecord:
    values = {
        "axis": axis,
        "trial": trial,
        "config": SMALL,
        "channels": SEQUENCES,
        "dice": 0.5,
        "epoch": 2,
        "preparation_hash": "abc",
        "code_version": "1",
    }
    return MemberRecord.model_validate(values | changes)


@pytest.fixture
def member_record() -> Callable[..., MemberRecord]:
    """Make a member's record."""
    return _member_record


@pytest.fixture(scope="session")
def _pristine_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ensemble")
    files = {}
    for trial, axis in enumerate(("axial", "coronal", "sagittal")):
        path = place / f"{axis}-{trial}.safetensors"
        network = build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=trial
        )
        save_member(path, network, _member_record(axis, trial))
        files[path.name] = path
    record = EnsembleRecord.model_validate(
        {
            "name": "toy",
            "sequences": SEQUENCES,
            "members": {path.stem.split("-")[0]: (name,) for name, path in files.items()},
            "comparison": {"scratch": {"axial": ("axial-0.safetensors",)}},
            "preparation_hash": "abc",
            "code_version": "1",
        }
    )
    write_ensemble(place / "ensemble", record, files)
    return place / "ensemble"


@pytest.fixture
def ensemble_folder(tmp_path: Path, _pristine_ensemble: Path) -> Path:
    """An ensemble of one untrained member an axis and one comparison, to spoil at will."""
    return Path(shutil.copytree(_pristine_ensemble, tmp_path / "ensemble"))


@pytest.fixture(scope="session")
def onnx_files(_pristine_ensemble: Path) -> dict[str, bytes]:
    """The ONNX files of that ensemble, by the names of its members' files."""
    members = sorted((_pristine_ensemble / "members").iterdir())
    return {path.name: onnx_bytes(load_member(path)) for path in members}
