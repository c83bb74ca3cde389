"""Slices on disk, one at a time.

Prepared slices lie in one Parquet file a case and axis, as `imaging.table` lays them out. A
*row group* is what Parquet reads at once; `prepare` makes one of every slice, so that any slice
comes without its neighbours. Files of larger groups are read as well, more slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from strokeseg.errors import UserError, shown
from strokeseg.imaging.slice_table import check_columns, slice_shape, table_to_arrays


class SliceFile:
    """One case's slices along one axis, for one thread."""

    def __init__(self, path: Path) -> None:
        """Open a file and read its footer.

        Raises:
            UserError: When it is missing or damaged, or was written with another schema.
        """
        self.path = path
        with _converts_errors(path):
            self._file = pq.ParquetFile(path)
            check_columns(self._file.schema_arrow)
        groups = self._file.metadata
        sizes = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        if not len(self):
            raise UserError(unreadable(path, "it holds no slices"))

    def __len__(self) -> int:
        """Number of slices."""
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every slice."""
        channels, height, width = slice_shape(self._file.schema_arrow, "image")
        return channels, height, width

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read whole columns, those of images and masks best left out.

        Raises:
            UserError: When the file is damaged.
        """
        with _converts_errors(self.path):
            table = self._file.read(columns=list(names), use_threads=False)
            if any(column.null_count for column in table.columns):
                raise ValueError("it has empty cells")
            return table

    def read(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Return a slice's image (C, H, W) and mask (H, W), by its place in the file.

        Raises:
            UserError: When the file is damaged.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with _converts_errors(self.path):
            table = self._file.read_row_group(group, columns=["image", "mask"], use_threads=False)
            images, masks = table_to_arrays(table.combine_chunks())
        place = row - int(self._starts[group])
        return images[place], masks[place]


@contextmanager
def _converts_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(unreadable(path, error)) from None


def unreadable(path: Path, error: Any) -> str:
    """Say that prepared slices cannot be read, and what to do."""
    reason = shown(" ".join(str(error).split())) or type(error).__name__
    return (
        f"{path}: cannot be read ({reason}); remove the folder prepared/ and run prepare again, "
        "searches go on with what they have"
    )
