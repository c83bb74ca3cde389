"""The work on one case leaves slices that can be read one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from strokeseg.imaging.cases import Case
from strokeseg.imaging.layouts.siss import find_siss_cases
from strokeseg.imaging.slice_table import table_to_arrays
from strokeseg.imaging.slices import AXES, slice_size
from strokeseg.preparation.tasks import CheckTask, SliceTask, spread
from strokeseg.records.config import DataConfig, ExperimentConfig


def test_each_slice_is_a_row_group_with_its_counts_beside_it(
    phantom_cases: Path, tmp_path: Path
) -> None:
    config = ExperimentConfig(data=DataConfig(path=str(phantom_cases)))
    (case, *_) = find_siss_cases(phantom_cases, config.data.sequences)
    measured = CheckTask(config)(case)
    sizes = {axis: slice_size(measured.shape, axis) for axis in AXES}
    task = SliceTask(config, folder=tmp_path, sizes=sizes, fingerprint="f")
    assert task(replace(case, fold="0")) == ""
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


@pytest.mark.usefixtures("local_ray")
def test_results_come_in_the_order_of_the_cases() -> None:
    cases = [
        Case(name=f"{n}", patient="p", images={"T1": Path(f"{n}.nii")}, mask=None) for n in range(5)
    ]
    shown = []
    found = spread(
        lambda case: (case.name, case.images["T1"]),
        cases,
        lambda done, total, note: shown.append((done, total)),
    )
    assert found == [(case.name, case.images["T1"]) for case in cases]
    assert shown == [(done, 5) for done in range(6)]
