"""Experiments on some of the siss-like cases, in a folder of their own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from benchmarks.part import Options, timed
from strokeseg.imaging.slice_table import table_to_arrays
from strokeseg.records.experiment import Experiment, open_experiment

AXIS = "axial"


def place_experiment(
    folder: Path,
    data: Path,
    *,
    cases: int | None = None,
    spacing_mm: float | None = None,
    search: Mapping[str, object] | None = None,
) -> Experiment:
    """Write an experiment's YAML and copy its cases beside it.

    Args:
        folder: Where; everything of the experiment lies below it.
        data: Folder of cases in the SISS layout.
        cases: How many of them; None for all.
        spacing_mm: Isotropic voxel size to resample to; None for the cases' own.
        search: Settings of the search.
    """
    config = folder / "experiment" / "experiment.yaml"
    config.parent.mkdir(parents=True)
    copied = folder / "data"
    for case in case_folders(data)[:cases]:
        shutil.copytree(case, copied / case.name)
    settings = {
        "data": {"path": str(copied)},
        "splits": {"folds": 4},
        "preparation": {"spacing_mm": [spacing_mm] * 3 if spacing_mm else None},
        "search": dict(search or {}),
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return open_experiment(str(config), str(folder / "runs"))


def case_folders(data: Path) -> list[Path]:
    """Return the cases' folders, in the order of their numbers."""
    folders = [path for path in data.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(folders, key=lambda path: int(path.name))


def our_command(command: str, experiment: Experiment) -> list[str]:
    """Return the command line of one of our commands on an experiment."""
    where = ["--experiment", str(experiment.config_path)]
    where += ["--storage", str(experiment.folder.parent)]
    return [sys.executable, "-m", f"strokeseg.{command}", *where]


def prepare(experiment: Experiment, options: Options) -> None:
    """Prepare an experiment; its time is not reported, but the lock keeps it out of others'."""
    timed(our_command("prepare", experiment), options)


def read_slices(
    slices_folder: Path, folds: tuple[int, ...]
) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.str_]]:
    """Read some folds' axial slices, in order of the files, cases and slices.

    Returns:
        Images (N, C, H, W) float16, masks (N, H, W) uint8, and (N,) names of cases.
    """
    files = [
        file
        for fold in folds
        for file in sorted((slices_folder / f"axis={AXIS}" / f"fold={fold}").glob("*.parquet"))
    ]
    batches = [batch for file in files for batch in pq.ParquetFile(file).read().to_batches()]
    arrays = [table_to_arrays(pa.Table.from_batches([batch])) for batch in batches]
    return (
        np.concatenate([images for images, _ in arrays]),
        np.concatenate([masks for _, masks in arrays]),
        np.concatenate([batch["case"].to_numpy(zero_copy_only=False) for batch in batches]).astype(
            np.str_
        ),
    )
