"""The steps from cases on disk to prepared slices: simulate, find, check, split, write.

Slices of the test set are not written: nothing that trains can meet them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from strokeseg.compute.session import ray_session
from strokeseg.errors import UserError
from strokeseg.imaging.cases import TEST, Case
from strokeseg.imaging.layouts import detection
from strokeseg.imaging.slices import AXES, SCHEMA_VERSION
from strokeseg.phantoms.dataset import write_phantoms
from strokeseg.preparation.decisions import common_size, common_spacing, decide_splits
from strokeseg.preparation.leak_audit import (
    LeakAudit,
    audit_leaks,
    check_distinct_patients,
    refuse_leaks,
    refuse_resemblances,
)
from strokeseg.preparation.tasks import CheckTask, SliceTask, spread
from strokeseg.process.progress import Show
from strokeseg.records.config import PhantomConfig
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.preparation import (
    Measured,
    Preparation,
    changed,
    changes_since,
    file_facts,
    files_of,
    is_prepared,
    read_preparation,
    refresh_paths,
    settings_of,
    write_cases,
    write_similarity,
    write_validation,
)
from strokeseg.records.splits import write_splits
from strokeseg.storage.files import read_json, replacing_folder, values_sha256, write_json

Progress = Callable[[str], AbstractContextManager[Show]]


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
    made = made if isinstance(made, dict) else {}
    wanted = phantom.model_dump()
    differing = [key for key in wanted if made.get(key) != wanted[key]]
    if differing:
        raise UserError(
            f"{folder}: was simulated with other settings ({', '.join(differing)}); "
            "move it away to simulate again"
        )
    return False


def ensure_prepared(
    experiment: Experiment, progress: Progress, *, compare_files: bool
) -> Preparation:
    """Return the preparation, made first (and its cases simulated) where it is not there.

    Args:
        progress: As for `prepare`.
        compare_files: Make sure that what is there was made of the experiment's data path.

    Raises:
        UserError: As `prepare` and `read_preparation` do.
    """
    if compare_files or not is_prepared(experiment):
        if experiment.config.data.phantom is not None:
            make_cases(experiment, progress)
        prepare(experiment, skip_invalid=False, overwrite=False, progress=progress)
    return read_preparation(experiment)


def find_cases(experiment: Experiment) -> list[Case]:
    """Find the experiment's cases in the layout that it names.

    Raises:
        UserError: When there are none, their layout is unknown, or the manifest is faulty.
    """
    data = experiment.config.data
    layout = "siss" if data.phantom is not None else data.layout
    return detection.find_cases(experiment.data_path, data.sequences, layout=layout)


def prepare(
    experiment: Experiment, *, skip_invalid: bool, overwrite: bool, progress: Progress
) -> tuple[Preparation, list[str], LeakAudit] | None:
    """Prepare an experiment.

    Args:
        experiment: Whose cases are prepared.
        skip_invalid: Leave invalid cases out instead of stopping.
        overwrite: Prepare again even if something else was prepared before.
        progress: Gives, for a title, a context manager of a function that shows progress.

    Returns:
        The preparation, a line for every case left out, and the leak audit, or None when
        it is there already and nothing has changed.

    Raises:
        UserError: When a case is invalid (one line each), when the cases cannot be split,
            when two patients have one scan, or when something has changed since the
            experiment was prepared.
    """
    cases = find_cases(experiment)
    check_distinct_patients(experiment.config, cases)
    if is_prepared(experiment) and not overwrite:
        changes = changes_since(experiment, cases)
        if not changes:
            refresh_paths(experiment, cases)
            return None
        raise changed(experiment, changes)
    with ray_session(experiment.folder, experiment.data_path):
        with progress("Checking cases") as show:
            measured = spread(CheckTask(experiment.config), cases, show)
        left_out = [
            f"{case.name}: {found.faults}"
            for case, found in zip(cases, measured, strict=True)
            if found.faults
        ]
        if left_out and not (skip_invalid and len(left_out) < len(cases)):
            table = _place_of_failure(experiment, experiment.validation_csv)
            write_validation(table, cases, measured)
            raise UserError(
                f"{len(left_out)} of {len(cases)} cases are invalid (mend them, or leave them "
                f"out with --skip-invalid; all cases in {table}):\n" + "\n".join(left_out)
            )
        valid = [
            (case, found) for case, found in zip(cases, measured, strict=True) if not found.faults
        ]
        with replacing_folder(experiment.prepared_folder) as folder, progress("Slicing") as show:
            write_validation(folder / experiment.validation_csv.name, cases, measured)
            audit = _write_prepared(experiment, folder, cases, valid, show)
    return read_preparation(experiment), left_out, audit


def _place_of_failure(experiment: Experiment, table: Path) -> Path:
    """Where a table goes that says why there is no new preparation."""
    if is_prepared(experiment):
        # The one inside tells of the preparation that stays in force.
        return experiment.folder / table.name
    return table


def _write_prepared(
    experiment: Experiment,
    folder: Path,
    found: Sequence[Case],
    valid: Sequence[tuple[Case, Measured]],
    show: Show,
) -> LeakAudit:
    config = experiment.config
    cases = [case for case, _ in valid]
    measured = [found for _, found in valid]
    spacing_mm = common_spacing(config, cases, measured)
    splits = decide_splits(config, found, cases, measured)
    sizes = {axis: common_size(config, cases, measured, axis) for axis in AXES}
    write_cases(folder / experiment.cases_csv.name, config, cases, splits, measured)
    write_splits(folder / experiment.splits_json.name, splits)
    settings = settings_of(config)
    # Those of invalid cases too, so that a case is noticed when it has been mended.
    files = {key: file_facts(path) for key, path in files_of(found).items()}
    refuse_leaks(cases, files)
    audit = audit_leaks(config, cases, measured)
    similarity_csv = folder / experiment.similarity_csv.name
    if audit.leaks:
        similarity_csv = _place_of_failure(experiment, experiment.similarity_csv)
    write_similarity(similarity_csv, audit.nearest)
    refuse_resemblances(audit.leaks, similarity_csv)
    fingerprint = values_sha256(
        {
            "schema_version": SCHEMA_VERSION,
            "settings": settings,
            "files": {key: files[key]["sha256"] for key in files_of(cases)},
            "splits": splits.hash,
            "sizes": sizes,
        }
    )
    assigned = [replace(case, fold=splits.subset(case.patient)) for case in cases]
    train = [case for case in assigned if case.fold != TEST]
    slices = folder / experiment.slices_folder.name
    slicer = SliceTask(
        config,
        folder=slices,
        sizes=sizes,
        fingerprint=fingerprint,
    )
    sliced = spread(slicer, train, show)
    if faults := [fault for fault in sliced if fault]:
        raise UserError("\n".join(faults))
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
            "distinct_patients": config.splits.distinct_patients,
            "files": files,
        },
    )
    return audit
