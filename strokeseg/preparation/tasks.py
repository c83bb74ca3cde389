"""The work on one case, and spreading it over Ray's CPUs.

A *task* is a function of a case, run by Ray Data on one CPU. A case is read twice: once to be
checked and measured, once to be sliced to the size that all the cases turned out to need.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray

from strokeseg.errors import CaseError, UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.metrics import volume_ml
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.imaging.slice_table import slices_to_table
from strokeseg.imaging.slices import cut, pad
from strokeseg.preparation.similarity import describe
from strokeseg.process.progress import Show
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.preparation import Measured
from strokeseg.storage.files import unwritable


class CheckTask:
    """Reads and measures one case."""

    def __init__(self, config: ExperimentConfig) -> None:
        self._config = config

    def __call__(self, case: Case) -> Measured:
        """Return what was measured, or the case's faults."""
        try:
            prepared = prepare_as_configured(case, self._config)
        except CaseError as error:
            return Measured(faults=str(error))
        if prepared.mask is None or prepared.native_mask is None:
            return Measured(faults="has no lesion mask; training and evaluation need one")
        x, y, z = prepared.images.shape[1:]
        return Measured(
            shape=(x, y, z),
            spacing_mm=prepared.spacing_mm,
            lesion_voxels=int(prepared.native_mask.sum()),
            lesion_ml=volume_ml(prepared.native_mask, prepared.native_grid.spacing_mm),
            descriptors=tuple(describe(image) for image in prepared.images),
        )


class SliceTask:
    """Slices one case along all axes into one Parquet file an axis, by the case's fold."""

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        folder: Path,
        sizes: Mapping[str, tuple[int, int]],
        fingerprint: str,
    ) -> None:
        self._config = config
        self._folder = folder
        self._sizes = sizes
        self._notes = {"fingerprint": fingerprint}

    def __call__(self, case: Case) -> str:
        """Return why the case could not be sliced, or None when it was."""
        # What a task raises reaches the driver wrapped beyond recognition.
        try:
            self._slice(case)
        except UserError as error:
            return f"{case.name}: {error}"
        except OSError as error:
            return str(unwritable(self._folder, error))
        return ""

    def _slice(self, case: Case) -> None:
        prepared = prepare_as_configured(case, self._config)
        if prepared.mask is None:
            raise UserError("lost its lesion mask while it was prepared; try again")
        images = prepared.images.astype(np.float16)
        for axis, size in self._sizes.items():
            table = slices_to_table(
                case.name,
                case.patient,
                pad(cut(images, axis), size),
                pad(cut(prepared.mask, axis), size),
                {**self._notes, "axis": axis},
            )
            folder = self._folder / f"axis={axis}" / f"fold={case.fold}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{case.name}.parquet"
            pq.write_table(
                table,
                path,
                # A reader decodes whole row groups: one slice each lets the feed take any slice.
                row_group_size=1,
                compression="zstd",
                use_dictionary=["case", "patient"],
                write_statistics=["case", "slice_index", "lesion_voxels", "brain_voxels"],
            )


def spread(
    work: Callable[[Case], Any],
    cases: Sequence[Case],
    show: Show,
    *,
    gpus: float = 0.0,
) -> list[Any]:
    """Run `work` for each case as Ray Data tasks of one CPU; results in order.

    Args:
        work: What to do with a case.
        show: Called after every case.
        gpus: Share of a GPU that a task needs as well.
    """
    show(0, len(cases), "")
    # As data, a task gets its own case only. In `work` all of them would be unpickled by every
    # task: of 2,800 cases that took as long as a case itself.
    numbered = [{"index": i, "case": pickle.dumps(case)} for i, case in enumerate(cases)]
    rows = ray.data.from_items(numbered, override_num_blocks=len(cases)).map(
        lambda row: {"index": row["index"], "result": [work(pickle.loads(row["case"]))]},
        num_gpus=gpus or None,
    )
    results: dict[int, Any] = {}
    for row in rows.iter_rows():
        results[int(row["index"])] = row["result"][0]
        show(len(results), len(cases), "")
    return [results[index] for index in range(len(cases))]


def prepare_as_configured(case: Case, config: ExperimentConfig) -> PreparedCase:
    """Read, check and normalise a case as the experiment's settings say.

    Raises:
        CaseError: With all faults of the case.
    """
    return prepare_case(
        case.images,
        sequences=config.data.sequences,
        mask=case.mask,
        lesion_labels=config.data.lesion_labels,
        reference=config.preparation.reference,
        spacing_mm=config.preparation.spacing_mm,
        faults=case.faults,
    )
