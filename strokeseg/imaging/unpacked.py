"""Slices unpacked: one after the other in a file, as a batch wants them.

A slice out of Parquet must be found, decompressed and checked, which takes ten times as long as
copying it. What is read again and again is unpacked once. The file has no name: nobody else
sees patients' images on the disk, and they are gone when the last process that reads them is,
however it ends.

Each slice is its image, (C, H, W) float16, and its mask, (H, W) uint8, in C order.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.imaging.slice_file import SliceFile, unreadable

_THREADS = 4


def unpacked_bytes(shape: tuple[int, int, int]) -> int:
    """Return the size of one slice, image and mask, by its channels, height and width."""
    channels, height, width = shape
    return (2 * channels + 1) * height * width


def unpack(
    files: Sequence[Path], counts: Sequence[int], shape: tuple[int, int, int], folder: Path
) -> IO[bytes]:
    """Unpack Parquet files of slices, in their order.

    Args:
        files: As `prepare` writes them.
        counts: Slices of each.
        shape: Channels, height and width of every slice.
        folder: On the disk to use.

    Returns:
        The file, which goes away with its last user.

    Raises:
        UserError: When a file is damaged or not what it was.
        OSError: When the disk is full.
    """
    stride = unpacked_bytes(shape)
    starts = np.cumsum([0, *counts])
    with ExitStack() as opened:
        unpacked = opened.enter_context(tempfile.TemporaryFile(dir=folder))
        # A disk that is too small says so at once.
        os.posix_fallocate(unpacked.fileno(), 0, int(starts[-1]) * stride)

        def unpack_one(path: Path, count: int, start: int) -> None:
            file = SliceFile(path)
            if (len(file), file.shape) != (count, shape):
                raise UserError(unreadable(path, "it has changed since the search began"))
            for row in range(count):
                _write(unpacked.fileno(), *file.read(row), (start + row) * stride)

        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="unpacking")
        opened.callback(pool.shutdown, cancel_futures=True)
        for _ in pool.map(unpack_one, files, counts, starts.tolist()):
            pass
        opened.pop_all()
        pool.shutdown()
        return unpacked


def read_unpacked(file: int, row: int, image: NDArray[np.float16], mask: NDArray[np.uint8]) -> None:
    """Read a slice of an unpacked file.

    Args:
        file: The file's descriptor.
        row: The slice's place in the file.
        image: (C, H, W), C-contiguous, to be filled.
        mask: (H, W), likewise.

    Raises:
        OSError: When the disk fails.
    """
    stride = image.nbytes + mask.nbytes
    if os.preadv(file, [image.data, mask.data], row * stride) != stride:
        raise OSError(errno.EIO, "unpacked slices ended early")


def _write(file: int, image: NDArray[np.float16], mask: NDArray[np.uint8], place: int) -> None:
    if os.pwritev(file, [image.data, mask.data], place) != image.nbytes + mask.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
