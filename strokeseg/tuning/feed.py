"""An axis's slices in shared memory: Parquet in, one zero-copy slice set a trial out.

Ray Data reads an axis's Parquet once a study into the object store. Every trial on a node
maps the same *blocks* (Arrow tables) as read-only views and takes its cases from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from strokeseg.errors import UserError
from strokeseg.imaging.table import table_to_arrays
from strokeseg.learning.slice_set import SliceSet

_STORE_SHARE = 0.6
_COLUMNS = ["case", "slice_index", "lesion_voxels", "image", "mask"]


def load_blocks(slices_folder: Path, axis: str) -> list[ray.ObjectRef]:
    """Read an axis's slices into Ray's object store.

    Everything is read before this returns: a read that went on while trials hold every
    CPU would wait for ever.

    Args:
        slices_folder: The experiment's Parquet files.
        axis: `axial`, `coronal` or `sagittal`.

    Returns:
        References to Arrow tables with the columns of `imaging.table`.

    Raises:
        UserError: When the slices do not fit the object store.
    """
    folder = slices_folder / f"axis={axis}"
    dataset = ray.data.read_parquet(str(folder), partitioning=None).select_columns(_COLUMNS)
    needed = dataset.size_bytes()
    available = ray.cluster_resources().get("object_store_memory", 0.0)
    if needed > _STORE_SHARE * available:
        raise UserError(
            f"{slices_folder}: the {axis} slices need {needed / 1e9:.1f} GB, more than "
            f"{_STORE_SHARE:.0%} of Ray's object store ({available / 1e9:.1f} GB); give Ray more "
            "memory, or prepare with a coarser preparation.spacing_mm"
        )
    references: list[ray.ObjectRef] = dataset.materialize().to_arrow_refs()
    return references


def slice_set(blocks: Sequence[pa.Table]) -> SliceSet:
    """View Arrow tables as one set of slices, without a copy, in order of case and slice.

    The order does not depend on that of the blocks, which Ray Data hands over as they come:
    equal seeds must draw equal slices.
    """
    chunks = [pa.Table.from_batches([batch]) for block in blocks for batch in block.to_batches()]
    chunks.sort(key=lambda chunk: (chunk["case"][0].as_py(), chunk["slice_index"][0].as_py()))
    arrays = [table_to_arrays(chunk) for chunk in chunks]
    return SliceSet(
        images=tuple(images for images, _ in arrays),
        masks=tuple(masks for _, masks in arrays),
        cases=np.concatenate([chunk["case"].to_numpy(zero_copy_only=False) for chunk in chunks]),
        lesion_voxels=np.concatenate([chunk["lesion_voxels"].to_numpy() for chunk in chunks]),
    )
