"""Prepared slices that lie: Parquet files with other bytes, schemas, and cells."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from mutations import TEXTS, mutated
from target_process import Target
from trying import try_inputs
from workspace import Input, Workspace

pytestmark = pytest.mark.slow
INPUTS = 450


@st.composite
def footers(draw: Callable[..., Any], good: bytes) -> bytes:
    """A file with other bytes in the footer, which says where all else lies."""
    start = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    return good[:start] + draw(mutated(good[start:]))


@st.composite
def tables(draw: Callable[..., Any], good: bytes) -> bytes:
    """A sound file of other columns, notes, types or cells."""
    table = pq.read_table(io.BytesIO(good))
    name = draw(st.sampled_from(table.column_names))
    index = table.column_names.index(name)
    notes = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    match draw(st.sampled_from(["drop", "type", "null", "notes", "empty", "twice", "codec"])):
        case "drop":
            table = table.drop_columns([name])
        case "type":
            kind = draw(st.sampled_from([pa.int8(), pa.string(), pa.float64(), pa.binary(3)]))
            table = table.set_column(index, name, pa.nulls(len(table), kind))
        case "null":
            field = table.schema.field(index)
            table = table.set_column(index, field, pa.nulls(len(table), field.type))
        case "notes":
            key = draw(st.sampled_from(["schema_version", "image_shape", "mask_shape"]))
            shape = st.lists(st.sampled_from([-1, 0, 1, 2, 16, 1 << 40, 1 << 63]), max_size=4).map(
                str
            )
            notes[key] = draw(st.one_of(shape, TEXTS)).encode(errors="replace").decode()
            fields = [
                field.with_metadata(notes) if field.metadata else field for field in table.schema
            ]
            table = table.cast(pa.schema(fields, metadata=notes))
        case "empty":
            table = table.slice(0, 0)
        case "twice":
            table = table.append_column(name, table.column(name))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=draw(st.sampled_from([1, 3, 1000])))
    return file.getvalue()


@pytest.mark.parametrize("damage", [mutated, footers, tables])
def test_slices_are_taken_or_refused(
    target: Target, workspace_of: Callable[[str], Workspace], damage: Any
) -> None:
    workspace = workspace_of("searched")
    name = next(name for name in sorted(workspace.names) if name.endswith(".parquet"))
    inputs = damage(workspace.good(name)).map(
        lambda content: Input(files={name: content}, note=name)
    )
    try_inputs(target, "read_slices", workspace, inputs, INPUTS)
