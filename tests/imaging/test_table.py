"""Slices as Arrow tables: exact, without a copy, through Parquet, and guarded."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from strokeseg.errors import UserError
from strokeseg.imaging.slice_table import slice_schema, slices_to_table, table_to_arrays


def slices(count=5, channels=3, height=4, width=6):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(count, channels, height, width)).astype(np.float16)
    masks = (generator.random((count, height, width)) > 0.7).astype(np.uint8)
    return images, masks


def test_columns_say_whose_slice_it_is_and_how_much_lesion_it_shows():
    images, masks = slices()
    table = slices_to_table("case-1", "patient-1", images, masks, {"preparation_hash": "abc"})
    assert table.schema.equals(slice_schema(3, (4, 6), {"preparation_hash": "abc"}), True)
    assert table["case"].to_pylist() == ["case-1"] * 5
    assert table["patient"].to_pylist() == ["patient-1"] * 5
    assert table["slice_index"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["lesion_voxels"].to_pylist() == [int(mask.sum()) for mask in masks]
    assert table.schema.metadata[b"preparation_hash"] == b"abc"


def test_a_voxel_is_brain_unless_it_is_zero_in_every_sequence():
    images = np.zeros((4, 2, 2, 3), dtype=np.float16)
    # Both sequences at one voxel, one sequence at another; the third slice is a whole brain.
    images[1, :, 0, 0] = 1.5
    images[1, 1, 1, 2] = -0.25
    images[2] = 1.0
    # What rounds to -0.0 lies inside the brain, as for slices.hold_brain.
    images[3, 0, 1, 1] = -1e-9
    masks = np.zeros((4, 2, 3), dtype=np.uint8)
    for given in (images, np.moveaxis(np.ascontiguousarray(np.moveaxis(images, 0, -1)), -1, 0)):
        table = slices_to_table("c", "p", given, masks, {})
        assert table["brain_voxels"].to_pylist() == [0, 2, 6, 1]
        assert table.schema.field("brain_voxels").type == pa.int32()


def test_arrays_come_back_equal_and_are_views_of_the_same_memory():
    images, masks = slices()
    table = slices_to_table("c", "p", images, masks, {})
    image_view, mask_view = table_to_arrays(table)
    np.testing.assert_array_equal(image_view, images)
    np.testing.assert_array_equal(mask_view, masks)
    assert image_view.dtype == np.float16 and mask_view.dtype == np.uint8
    assert np.shares_memory(image_view, images) and np.shares_memory(mask_view, masks)
    assert not image_view.flags.writeable and not mask_view.flags.writeable


def test_views_outlive_the_table():
    images, masks = slices()
    image_view, _ = table_to_arrays(slices_to_table("c", "p", images.copy(), masks, {}))
    np.testing.assert_array_equal(image_view, images)


def test_a_slice_of_a_table_and_a_batch_start_at_their_own_rows():
    images, masks = slices()
    part = slices_to_table("c", "p", images, masks, {}).slice(2, 2)
    for piece in (part, part.to_batches()[0]):
        image_view, mask_view = table_to_arrays(piece)
        np.testing.assert_array_equal(image_view, images[2:4])
        np.testing.assert_array_equal(mask_view, masks[2:4])
        assert np.shares_memory(image_view, images)


def test_parquet_keeps_bytes_and_metadata(tmp_path):
    images, masks = slices()
    table = slices_to_table("c", "p", images, masks, {"preparation_hash": "abc"})
    parquet.write_table(table, tmp_path / "slices.parquet", compression="zstd")
    loaded = parquet.read_table(tmp_path / "slices.parquet", columns=["image", "mask"])
    np.testing.assert_array_equal(table_to_arrays(loaded)[0], images)
    np.testing.assert_array_equal(table_to_arrays(loaded)[1], masks)
    assert loaded.schema.metadata[b"preparation_hash"] == b"abc"


def test_shapes_survive_the_loss_of_the_schema_metadata():
    images, masks = slices()
    table = slices_to_table("c", "p", images, masks, {"note": "n"}).replace_schema_metadata(None)
    np.testing.assert_array_equal(table_to_arrays(table)[0], images)
    assert table.schema.field("image").metadata[b"note"] == b"n"


def test_a_table_in_pieces_is_read_piece_by_piece():
    images, masks = slices()
    whole = pa.concat_tables([slices_to_table(name, name, images, masks, {}) for name in "ab"])
    with pytest.raises(ValueError, match="to_batches"):
        table_to_arrays(whole)
    assert [len(table_to_arrays(batch)[0]) for batch in whole.to_batches()] == [5, 5]


def test_slices_that_are_not_contiguous_are_stored_in_their_order():
    images, masks = slices()
    table = slices_to_table("c", "p", images[::-1], masks[::-1], {})
    np.testing.assert_array_equal(table_to_arrays(table)[0], images[::-1])


def test_no_slices_make_empty_arrays():
    images, masks = slices(count=0)
    views = table_to_arrays(slices_to_table("c", "p", images, masks, {}))
    assert views[0].shape == (0, 3, 4, 6) and views[1].shape == (0, 4, 6)


def test_another_schema_version_asks_to_prepare_again():
    images, masks = slices()
    table = slices_to_table("c", "p", images, masks, {})
    field = table.schema.field("image")
    old = field.with_metadata({**field.metadata, b"schema_version": b"0"})
    table = table.cast(table.schema.set(table.schema.get_field_index("image"), old))
    with pytest.raises(UserError, match="got 0; .* run prepare again"):
        table_to_arrays(table)


@pytest.mark.parametrize(
    ("images", "masks", "fault"),
    [
        (slices()[0].astype(np.float32), slices()[1], "float16"),
        (slices()[0], slices()[1].astype(bool), "uint8"),
        (slices()[0], slices()[1][1:], r"\(N, H, W\)"),
        (slices()[0][0], slices()[1], r"\(N, C, H, W\)"),
    ],
)
def test_other_arrays_are_refused(images, masks, fault):
    with pytest.raises(ValueError, match=fault):
        slices_to_table("c", "p", images, masks, {})


def test_notes_cannot_replace_the_shapes():
    with pytest.raises(ValueError, match="image_shape"):
        slice_schema(3, (4, 6), {"image_shape": "[1, 1, 1]"})
