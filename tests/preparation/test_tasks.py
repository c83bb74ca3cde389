"""The work on one case leaves slices that can be read one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from strokeseg.config import DataConfig, ExperimentConfig
from strokeseg.imaging.cases import find_siss_cases
from strokeseg.imaging.slices import AXES, slice_size
from strokeseg.imaging.table import table_to_arrays
from strokeseg.preparation.tasks import CheckTask, SliceTask


def test_each_slice_is_a_row_group_with_its_counts_beside_it(
    phantom_cases: Path, tmp_path: Path
) -> None:
    config = ExperimentConfig(data=DataConfig(path=str(phantom_cases)))
    (case, *_) = find_siss_cases(phantom_cases, config.data.sequences)
    measured = CheckTask([case], config)(0)
    sizes = {axis: slice_size(measured.shape, axis) for axis in AXES}
    task = SliceTask([case], config, folder=tmp_path, sides=["0"], sizes=sizes, fingerprint="f")
    assert task(0) == ""
    x, y, z = measured.shape
    for axis, count in (("sagittal", x), ("coronal", y), ("axial", z)):
        file = pq.ParquetFile(tmp_path / f"axis={axis}" / "fold=0" / f"{case.name}.parquet")
        assert file.num_row_groups == file.metadata.num_rows == count
        middle = file.read_row_group(count // 2)
        images, masks = table_to_arrays(middle)
        brain = int((images != 0).any(axis=1).sum())
        assert middle["slice_index"].to_pylist() == [count // 2]
        assert middle["brain_voxels"].to_pylist() == [brain] and brain > 0
        # A reader may choose slices by the footer alone.
        chunks = file.metadata.row_group(count // 2)
        columns = [chunks.column(index) for index in range(chunks.num_columns)]
        known = {
            column.path_in_schema: column.statistics.max
            for column in columns
            if column.is_stats_set
        }
        assert known == {
            "case": case.name,
            "slice_index": count // 2,
            "lesion_voxels": int(np.sum(masks)),
            "brain_voxels": brain,
        }
