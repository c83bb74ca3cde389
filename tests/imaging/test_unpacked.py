"""Slices unpacked into a file without a name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.slice_table import slices_to_table
from strokeseg.imaging.unpacked import read_unpacked, unpack, unpacked_bytes

SHAPE = (2, 6, 5)
DIE = """
import os, sys
from pathlib import Path
from strokeseg.imaging.unpacked import unpack
file = unpack([Path(sys.argv[1])], [3], (2, 6, 5), Path(sys.argv[2]))
os.kill(os.getpid(), 9)
"""


def write(path: Path, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(count, *SHAPE)).astype(np.float16)
    masks = draw.integers(0, 2, size=(count, *SHAPE[1:]), dtype=np.uint8)
    pq.write_table(slices_to_table(path.stem, path.stem, images, masks, {}), path, row_group_size=2)
    return images, masks


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file of more bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_unpacked_is_read_in_the_order_of_files_and_slices(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    counts = [3, 1, 4]
    written = [write(path, count, count) for path, count in zip(files, counts, strict=True)]
    images = np.concatenate([images for images, _ in written])
    masks = np.concatenate([masks for _, masks in written])
    folder = tmp_path / "disk"
    folder.mkdir()
    with unpack(files, counts, SHAPE, folder) as file:
        assert os.stat(file.fileno()).st_size == 8 * unpacked_bytes(SHAPE)
        assert list(folder.iterdir()) == []
        for row in (7, 0, 3, 2):
            image, mask = np.empty(SHAPE, np.float16), np.empty(SHAPE[1:], np.uint8)
            read_unpacked(file.fileno(), row, image, mask)
            assert np.array_equal(image, images[row])
            assert np.array_equal(mask, masks[row])
        with pytest.raises(OSError, match="ended early"):
            read_unpacked(file.fileno(), 8, image, mask)


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, 3, 0)
    with pytest.raises(UserError, match=f"{path}.*has changed since"):
        unpack([path], [4], SHAPE, tmp_path)


@pytest.mark.parametrize("kept", [None, 0.5], ids=["gone", "cut"])
def test_a_file_that_is_gone_or_cut_is_named(tmp_path: Path, kept: float | None) -> None:
    path = tmp_path / "a.parquet"
    write(path, 3, 0)
    content = path.read_bytes()
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=f"{path}.*run prepare again") as caught:
        unpack([path], [3], SHAPE, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_says_so_before_anything_is_unpacked(tmp_path: Path) -> None:
    missing = tmp_path / "never-read.parquet"
    with largest_file(1000), pytest.raises(OSError, match="large|space"):
        unpack([missing], [100], SHAPE, tmp_path)


def test_nothing_is_left_by_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, 3, 0)
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", DIE, path, folder], check=False)
    assert done.returncode == -9
    assert list(folder.iterdir()) == []
