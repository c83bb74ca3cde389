"""The steps from cases on disk to prepared slices: simulate, find, check, split, write.

Slices of the test set are not written: nothing that trains can meet them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from strokeseg.config import ExperimentConfig, PhantomConfig
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment, code_version
from strokeseg.files import read_json, replacing_folder, values_sha256, write_json
from strokeseg.imaging.cases import Case, find_siss_cases, read_manifest
from strokeseg.imaging.phantoms import write_phantoms
from strokeseg.imaging.slices import AXES, slice_size
from strokeseg.imaging.splits import TEST, Splits, draw_splits, given_splits, write_splits
from strokeseg.imaging.table import SCHEMA_VERSION
from strokeseg.preparation.record import (
    Measured,
    Preparation,
    Spacing,
    changes_since,
    file_facts,
    files_of,
    is_prepared,
    read_preparation,
    refresh_paths,
    settings_of,
    write_cases,
    write_validation,
)
from strokeseg.preparation.tasks import CheckTask, Show, SliceTask, spread
from strokeseg.ray_session import ray_session

Progress = Callable[[str], AbstractContextManager[Show]]

_SPACING_TOLERANCE = 0.01


def simulate(folder: Path, phantom: PhantomConfig, progress: Progress) -> None:
    """Simulate cases into a folder that is not there yet, on all CPUs of this machine."""
    done: list[str] = []
    with progress("Simulating") as show:

        def count(name: str) -> None:
            done.append(name)
            show(len(done), phantom.cases, f"case {name}")

        write_phantoms(
            folder,
            cases=phantom.cases,
            spacing_mm=phantom.spacing_mm,
            seed=phantom.seed,
            lesion_free_share=phantom.lesion_free_share,
            workers=os.cpu_count() or 1,
            on_case=count,
        )


def make_cases(experiment: Experiment, progress: Progress) -> bool:
    """Simulate an experiment's cases unless they are there; return whether it did.

    Raises:
        UserError: When the experiment reads its cases instead of simulating them, or the
            folder holds cases that were simulated with other settings.
    """
    phantom = experiment.config.data.phantom
    folder = experiment.data_path
    if phantom is None:
        raise UserError(
            f"{experiment.config_path}: reads its cases from {folder}; "
            "set data.phantom to simulate them"
        )
    if not folder.exists():
        simulate(folder, phantom, progress)
        return True
    made = read_json(folder / "phantom.json")
    wanted = phantom.model_dump()
    differing = [key for key in wanted if made.get(key) != wanted[key]]
    if differing:
        raise UserError(
            f"{folder}: was simulated with other settings ({', '.join(differing)}); "
            "move it away to simulate anew"
        )
    return False


def ensure_prepared(experiment: Experiment, progress: Progress) -> Preparation:
    """Return the preparation, made first (and its cases simulated) where it is not there."""
    if not is_prepared(experiment):
        if experiment.config.data.phantom is not None:
            make_cases(experiment, progress)
        prepare(experiment, skip_invalid=False, overwrite=False, progress=progress)
    return read_preparation(experiment)


def find_cases(experiment: Experiment) -> list[Case]:
    """Find the experiment's cases in the layout that it names.

    Raises:
        UserError: When there are none, or the manifest is faulty.
    """
    data = experiment.config.data
    find = find_siss_cases if data.layout == "siss" else read_manifest
    return find(experiment.data_path, data.sequences)


def prepare(
    experiment: Experiment, *, skip_invalid: bool, overwrite: bool, progress: Progress
) -> tuple[Preparation, list[str]] | None:
    """Prepare an experiment.

    Args:
        experiment: Whose cases are prepared.
        skip_invalid: Leave invalid cases out instead of stopping.
        overwrite: Prepare anew even if something else was prepared before.
        progress: Gives, for a title, a context manager of a function that shows progress.

    Returns:
        The preparation and a line for every case left out, or nothing when it is there
        already and nothing has changed.

    Raises:
        UserError: When a case is invalid (one line each), when the cases cannot be split,
            or when something has changed since the experiment was prepared.
    """
    cases = find_cases(experiment)
    if is_prepared(experiment) and not overwrite:
        changes = changes_since(experiment, cases)
        if not changes:
            refresh_paths(experiment, cases)
            return None
        raise UserError(
            f"{experiment.prepared_folder}: prepared before, and since then changed: "
            f"{'; '.join(changes)}. Choose another experiment name, or prepare and split anew "
            "with --overwrite (what was searched and scored before then no longer applies)"
        )
    with ray_session():
        with progress("Checking cases") as show:
            measured = spread(CheckTask(cases, experiment.config), len(cases), show)
        left_out = [
            f"{case.name}: {found.faults}"
            for case, found in zip(cases, measured, strict=True)
            if found.faults
        ]
        if left_out and not (skip_invalid and len(left_out) < len(cases)):
            write_validation(_failed_validation_csv(experiment), cases, measured)
            raise UserError(
                f"{len(left_out)} of {len(cases)} cases are invalid (mend them, or leave them "
                "out with --skip-invalid):\n" + "\n".join(left_out)
            )
        valid = [
            (case, found) for case, found in zip(cases, measured, strict=True) if not found.faults
        ]
        with replacing_folder(experiment.prepared_folder) as folder, progress("Slicing") as show:
            write_validation(folder / experiment.validation_csv.name, cases, measured)
            _write_prepared(experiment, folder, cases, valid, show)
    return read_preparation(experiment), left_out


def _failed_validation_csv(experiment: Experiment) -> Path:
    if is_prepared(experiment):
        # The one inside tells of the preparation that stays in force.
        return experiment.folder / experiment.validation_csv.name
    return experiment.validation_csv


def _write_prepared(
    experiment: Experiment,
    folder: Path,
    found: Sequence[Case],
    valid: Sequence[tuple[Case, Measured]],
    show: Show,
) -> None:
    config = experiment.config
    cases = [case for case, _ in valid]
    measured = [found for _, found in valid]
    spacing_mm = _common_spacing(config, cases, measured)
    splits = _split(config, cases, measured)
    sizes = {axis: _size(config, cases, measured, axis) for axis in AXES}
    write_cases(folder / experiment.cases_csv.name, config, cases, splits, measured)
    write_splits(folder / experiment.splits_json.name, splits)
    settings = settings_of(config)
    # Those of invalid cases too, so that a case is noticed when it has been mended.
    files = {key: file_facts(path) for key, path in files_of(found).items()}
    fingerprint = values_sha256(
        {
            "schema_version": SCHEMA_VERSION,
            "settings": settings,
            "files": {key: files[key]["sha256"] for key in files_of(cases)},
            "splits": splits.hash,
            "sizes": sizes,
        }
    )
    train = [case for case in cases if splits.side(case.patient) != TEST]
    slicer = SliceTask(
        train,
        config,
        folder=folder / experiment.slices_folder.name,
        sides=[splits.side(case.patient) for case in train],
        sizes=sizes,
        fingerprint=fingerprint,
    )
    spread(slicer, len(train), show)
    write_json(
        folder / experiment.preparation_json.name,
        {
            "fingerprint": fingerprint,
            "code_version": code_version(),
            "schema_version": SCHEMA_VERSION,
            "settings": settings,
            "spacing_mm": spacing_mm,
            "slice_sizes": sizes,
            "splits_hash": splits.hash,
            "files": files,
        },
    )


def _common_spacing(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured]
) -> Spacing:
    if config.preparation.spacing_mm is not None:
        return config.preparation.spacing_mm
    spacings = np.array([found.spacing_mm for found in measured])
    common = np.median(spacings, axis=0)
    odd = np.abs(spacings / common - 1).max(axis=1) > _SPACING_TOLERANCE
    if odd.any():
        strange = int(np.flatnonzero(odd)[0])
        raise UserError(
            f"all cases must have one voxel size, but case {cases[strange].name} has "
            f"{_by(spacings[strange])} mm where most have {_by(common)} mm; "
            "set preparation.spacing_mm to resample them"
        )
    x, y, z = (round(float(side), 4) for side in common)
    return x, y, z


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _split(config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured]) -> Splits:
    if any(case.fold is not None for case in cases):
        sides: dict[str, set[str]] = {}
        for case in cases:
            sides.setdefault(case.patient, set()).add(case.fold or "")
        splits = given_splits(sides)
    else:
        lesion_ml: dict[str, float] = {}
        for case, found in zip(cases, measured, strict=True):
            lesion_ml[case.patient] = lesion_ml.get(case.patient, 0.0) + found.lesion_ml
        splits = draw_splits(
            lesion_ml,
            folds=config.splits.folds,
            test_patients=config.splits.test_patients,
            test_share=config.splits.test_share,
            seed=config.splits.seed,
        )
    if config.splits.validation_fold >= len(splits.folds):
        raise UserError(
            f"splits.validation_fold is {config.splits.validation_fold}, but the manifest names "
            f"the folds 0 to {len(splits.folds) - 1} only"
        )
    return splits


def _size(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured], axis: str
) -> tuple[int, int]:
    """The slice size of an axis: the experiment's, or the smallest that holds every case."""
    needed = [slice_size(found.shape, axis) for found in measured]
    largest = (max(height for height, _ in needed), max(width for _, width in needed))
    given = config.preparation.slice_size
    if given is None:
        return largest
    for case, (height, width) in zip(cases, needed, strict=True):
        if height > given[0] or width > given[1]:
            raise UserError(
                f"preparation.slice_size is {given[0]} x {given[1]}, but the {axis} slices of case "
                f"{case.name} need {height} x {width}; set at least {largest[0]} x {largest[1]}, "
                "or leave it out"
            )
    return given
