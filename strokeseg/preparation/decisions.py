"""What all cases decide together: their voxel size, slice size and splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.prepared import SPACING_TOLERANCE
from strokeseg.imaging.slices import slice_size
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.preparation import Measured, Spacing
from strokeseg.records.splits import Splits, draw_splits, given_splits


def common_spacing(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured]
) -> Spacing:
    """Return the experiment's voxel size, or the one that all cases have.

    Raises:
        UserError: When they have different ones.
    """
    if config.preparation.spacing_mm is not None:
        return config.preparation.spacing_mm
    spacings = np.array([found.spacing_mm for found in measured])
    common = np.median(spacings, axis=0)
    odd = np.abs(spacings / common - 1).max(axis=1) > SPACING_TOLERANCE
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


def decide_splits(
    config: ExperimentConfig,
    found: Sequence[Case],
    cases: Sequence[Case],
    measured: Sequence[Measured],
) -> Splits:
    """Take the splits of the manifest's fold column, or draw them where there is none.

    Args:
        found: All cases, the invalid ones as well.
        measured: What was measured of them.

    Raises:
        UserError: When they cannot be split as configured.
    """
    wanted = config.splits.test_patients
    missing = {case.patient for case in found} - {case.patient for case in cases}
    if wanted is not None and (lost := sorted(missing.intersection(wanted))):
        raise UserError(
            f"patients {', '.join(lost)} of splits.test_patients have no valid case; mend it, or "
            "take them out of the list"
        )
    if any(case.fold is not None for case in cases):
        subsets: dict[str, set[str]] = {}
        for case in cases:
            subsets.setdefault(case.patient, set()).add(case.fold or "")
        splits = given_splits(subsets)
        if wanted is not None and set(wanted) != set(splits.test):
            raise UserError(
                f"splits.test_patients is {sorted(wanted)}, but the manifest's fold column says "
                f"{sorted(splits.test)}; remove one of them"
            )
    else:
        lesion_ml: dict[str, float] = {}
        for case, facts in zip(cases, measured, strict=True):
            lesion_ml[case.patient] = lesion_ml.get(case.patient, 0.0) + facts.lesion_ml
        splits = draw_splits(
            lesion_ml,
            folds=config.splits.folds,
            test_patients=config.splits.test_patients,
            test_share=config.splits.test_share,
            seed=config.splits.seed,
        )
    if config.splits.validation_fold >= len(splits.folds):
        raise UserError(
            f"splits.validation_fold is {config.splits.validation_fold}, but the folds are 0 to "
            f"{len(splits.folds) - 1} only"
        )
    return splits


def common_size(
    config: ExperimentConfig, cases: Sequence[Case], measured: Sequence[Measured], axis: str
) -> tuple[int, int]:
    """Return the experiment's slice size, or the smallest that holds every case.

    Raises:
        UserError: When the experiment's is too small for a case.
    """
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
