"""Tables: the slices of a case as rows of Arrow and Parquet, and back as arrays.

A row is one slice: whose it is, its place along the axis, how many of its voxels are
lesion and how many are brain (not 0 in every sequence), and the raw bytes of image and
mask. Fixed-size binary columns are one piece of
memory, so an array of all slices is a view of it: nothing is decoded or copied.

The shapes behind the bytes, the version of this schema and the caller's own notes stand
in the metadata of the schema and of both binary columns: Ray Data drops the schema's
metadata, but carries the columns' along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strokeseg.errors import UserError, shown
from strokeseg.imaging.slices import SCHEMA_VERSION


def slice_schema(channels: int, size: tuple[int, int], metadata: Mapping[str, str]) -> pa.Schema:
    """The columns of a table of slices.

    `image` holds (C, H, W) float16 and `mask` (H, W) uint8, in C order and little-endian.

    Args:
        channels: Number of sequences, C.
        size: (H, W) of the padded slices.
        metadata: Notes to carry along, such as the preparation's hash.

    Raises:
        ValueError: When a note takes one of the schema's own names.
    """
    own = {
        "schema_version": SCHEMA_VERSION,
        "image_shape": json.dumps([channels, *size]),
        "mask_shape": json.dumps(list(size)),
    }
    if taken := own.keys() & metadata.keys():
        raise ValueError(f"metadata must not hold the schema's own names, got {sorted(taken)}")
    notes = {**metadata, **own}
    height, width = size
    return pa.schema(
        [
            pa.field("case", pa.string()),
            pa.field("patient", pa.string()),
            pa.field("slice_index", pa.int32()),
            pa.field("lesion_voxels", pa.int32()),
            pa.field("brain_voxels", pa.int32()),
            pa.field("image", pa.binary(channels * height * width * 2), metadata=notes),
            pa.field("mask", pa.binary(height * width), metadata=notes),
        ],
        metadata=notes,
    )


def slices_to_table(
    case: str,
    patient: str,
    images: NDArray[np.float16],
    masks: NDArray[np.uint8],
    metadata: Mapping[str, str],
) -> pa.Table:
    """One case's slices along one axis as a table, in their order.

    Args:
        case: Name of the case.
        patient: Whose it is.
        images: (N, C, H, W) float16; not copied when C-contiguous.
        masks: (N, H, W) uint8, 0 and 1; not copied when C-contiguous.
        metadata: See `slice_schema`.

    Returns:
        N rows with `slice_index` from 0 to N - 1.

    Raises:
        ValueError: When dtypes or shapes are others.
    """
    if images.dtype != np.float16 or masks.dtype != np.uint8:
        raise ValueError(
            f"images must be float16 and masks uint8, got {images.dtype} and {masks.dtype}"
        )
    if images.ndim != 4 or masks.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"images must be (N, C, H, W) and masks (N, H, W), got {images.shape} and {masks.shape}"
        )
    count, channels, height, width = images.shape
    columns = [
        pa.array([case] * count, pa.string()),
        pa.array([patient] * count, pa.string()),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.array(masks.sum(axis=(1, 2), dtype=np.int32)),
        pa.array(_brain_voxels(images)),
        _binary_column(images),
        _binary_column(masks),
    ]
    return pa.table(columns, schema=slice_schema(channels, (height, width), metadata))


def in_one_piece(table: pa.Table) -> pa.Table:
    """Copy a table so that each of its columns is one piece of memory.

    It stands here since it runs in processes of Ray Data, which need not load PyTorch for it.
    """
    return table.combine_chunks()


def table_to_arrays(
    table: pa.Table | pa.RecordBatch,
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The slices of a table as arrays on the table's own memory.

    Args:
        table: Rows of `slice_schema` with at least the columns `image` and `mask`, in one
            piece; of a table in several pieces give each of `table.to_batches()`.

    Returns:
        Images (N, C, H, W) float16 and masks (N, H, W) uint8: read-only views that keep
        the memory alive.

    Raises:
        UserError: When the table was written with another version of the schema.
        ValueError: When a column is in several pieces or has empty cells.
    """
    return _binary_view(table, "image", np.float16), _binary_view(table, "mask", np.uint8)


def _brain_voxels(images: NDArray[np.float16]) -> NDArray[np.int32]:
    # Bit patterns, since comparing float16 numbers takes numpy several times as long. A -0.0
    # is a small number below the brain's mean that was rounded: it counts as brain.
    bits = np.bitwise_or.reduce(images.view(np.uint16), axis=1)
    return np.asarray(np.count_nonzero(bits, axis=(1, 2)), dtype=np.int32)


def _binary_column(slices: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    contiguous = np.ascontiguousarray(slices)
    width = contiguous.itemsize * int(np.prod(contiguous.shape[1:]))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(contiguous), [None, pa.py_buffer(contiguous)]
    )


def _binary_view(table: pa.Table | pa.RecordBatch, name: str, dtype: type[Any]) -> NDArray[Any]:
    shape = slice_shape(table.schema, name)
    column = table.column(name)
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks > 1:
            raise ValueError(
                f"column {name} must be in one piece, got {column.num_chunks}; "
                "give each of table.to_batches()"
            )
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        raise ValueError(f"column {name} must have no empty cells, got {column.null_count}")
    item_bytes = column.type.byte_width
    content = column.buffers()[1] or b""
    flat = np.frombuffer(content, dtype=np.uint8)[column.offset * item_bytes :]
    view: NDArray[Any] = flat[: len(column) * item_bytes].view(dtype).reshape(-1, *shape)
    view.flags.writeable = False
    return view


def check_schema(schema: pa.Schema) -> None:
    """Check that slices were written with this version of the schema.

    Raises:
        UserError: When they were not.
    """
    notes = schema.field("image").metadata if schema.names.count("image") == 1 else None
    version = (notes or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"prepared slices must have schema version {SCHEMA_VERSION}, got {shown(version)}; "
            "remove the folder prepared/ and run prepare again"
        )


def check_columns(schema: pa.Schema) -> None:
    """Check that a file has all columns of slices, and binary ones as wide as their shapes say.

    Raises:
        UserError: When it has not.
    """
    check_schema(schema)
    try:
        channels, height, width = slice_shape(schema, "image")
        fits = schema.equals(slice_schema(channels, (height, width), {})) and slice_shape(
            schema, "mask"
        ) == [height, width]
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
        fits = False
    if not fits or min(channels, height, width) < 1:
        raise UserError(
            "prepared slices must have the columns that prepare writes, and shapes that fit them; "
            "remove the folder prepared/ and run prepare again"
        )


def slice_shape(schema: pa.Schema, name: str) -> list[int]:
    """Return the shape of a slice's `image` (C, H, W) or `mask` (H, W)."""
    check_schema(schema)
    shape: list[int] = json.loads(schema.field(name).metadata[f"{name}_shape".encode()])
    return shape
