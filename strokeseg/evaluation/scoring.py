"""One case, scored: read and prepared once, predicted once by every member.

*Disagreement* is what `imaging.uncertainty` calls so, between the axes of the ensemble. It is
looked at in two ways: its mean over the voxels that any axis calls lesion should tell a hard
case from an easy one; within the brain, it should be higher where the vote is wrong.

Source:
    Roy et al., Bayesian QuickNAT: Model uncertainty in deep whole-brain segmentation for
    structure-wise quality control, NeuroImage 195 (2019), for means over the structure;
    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic
    (ROC) curve, Radiology 143 (1982).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from strokeseg.ensemble.slicewise import Predictor
from strokeseg.ensemble.torch_predictor import load_predictors
from strokeseg.ensemble.vote import predict_members
from strokeseg.errors import CaseError, UserError
from strokeseg.evaluation.methods import all_members, apply_methods
from strokeseg.imaging.cases import Case, derivative_name, mask_name
from strokeseg.imaging.metric_names import Policy
from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.imaging.uncertainty import disagreement
from strokeseg.imaging.volume import write_map, write_mask
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.ensemble import (
    MEMBERS_FOLDER,
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)
from strokeseg.records.summary import ScoreRow

Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is the same for all cases.

    Attributes:
        config: Of the experiment.
        ensemble_folder: Its ensemble.
        ensemble_sha256: The hash of the ensemble's record.
        masks_folder: Where the masks of the ensemble and its axes go.
        uncertainty_folder: Where the maps of disagreement go.
        policy: How empty masks and distances count, see `imaging.metrics`.
        device: Where networks predict, as torch names it.
        threads: Of torch, where networks predict on the CPU.
    """

    config: ExperimentConfig
    ensemble_folder: Path
    ensemble_sha256: str
    masks_folder: Path
    uncertainty_folder: Path
    policy: Policy
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What was found of one case.

    Attributes:
        rows: A row a method.
        mean_disagreement: Over the voxels that any axis calls lesion; None where none does.
        auroc: With which a brain voxel's disagreement tells the vote's errors from the rest;
            None where all are errors, or none.
    """

    rows: tuple[ScoreRow, ...]
    mean_disagreement: float | None
    auroc: float | None


def score_case(job: Job, case: Case) -> CaseResult | UserError:
    """Score a case by every method and write its masks; for a Ray task.

    Returns:
        What was found, or, since what a task raises reaches the driver wrapped beyond
        recognition, what is wrong: a CaseError when it is with the case alone.
    """
    torch.set_num_threads(job.threads)
    try:
        return _score(job, case)
    except UserError as error:
        return error


def _score(job: Job, case: Case) -> CaseResult:
    record, predictors = _ensemble(job.ensemble_folder, job.ensemble_sha256, job.device)
    prepared = prepare_case(
        case.images,
        sequences=record.sequences,
        mask=case.mask,
        lesion_labels=job.config.data.lesion_labels,
        reference=record.reference,
        spacing_mm=record.spacing_mm,
    )
    truth, grid = prepared.native_mask, prepared.native_grid
    if truth is None:
        raise CaseError(f"case {case.name} has no lesion mask to be scored against")
    methods = apply_methods(record, predict_members(predictors, prepared), grid.spacing_mm)
    decision = methods.decision
    for method, kind in methods.kinds.items():
        if kind == "axis" or methods.masks[method] is decision.mask:
            path = job.masks_folder / mask_name(case.name, method)
            write_mask(path, methods.masks[method], grid)
    unsure = disagreement(decision.axis_probabilities)
    write_map(job.uncertainty_folder / uncertainty_name(case.name), unsure, grid)
    scores = _scores(truth, methods.masks, grid.spacing_mm, job.policy)
    any_axis = np.any([mask > 0 for mask in decision.axis_masks.values()], axis=0)
    brain = _brain(prepared)
    return CaseResult(
        rows=tuple(
            ScoreRow(
                case=case.name,
                patient=case.patient,
                method=method,
                kind=methods.kinds[method],
                values=values,
            )
            for method, values in scores.items()
        ),
        mean_disagreement=(
            float(unsure[any_axis].mean(dtype=np.float64)) if any_axis.any() else None
        ),
        auroc=area_under_roc(unsure[brain], (decision.mask != truth)[brain]),
    )


def uncertainty_name(case: str) -> str:
    """The file name of a case's map of disagreement."""
    return derivative_name(case, "disagreement", "uncertainty.nii.gz")


def scores_of(
    truth: NDArray[np.generic], mask: NDArray[np.generic], spacing_mm: Spacing, policy: Policy
) -> dict[str, float | None]:
    """Score one mask; metrics that are not defined become None.

    Args:
        truth: (X, Y, Z) bool or integer, 0 and 1.
        mask: The same shape and values, on the same grid.
        spacing_mm: Voxel size along the masks' axes.
        policy: How empty masks and distances count.
    """
    values = asdict(score_masks(truth, mask, spacing_mm, policy=policy))
    return {
        metric: value if value is not None and isfinite(value) else None
        for metric, value in values.items()
    }


def area_under_roc(values: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    """Return the chance that a positive has a larger value than another, ties counting half.

    Args:
        values: (N,), finite.
        positive: (N,).

    Returns:
        0 to 1; None where all are positive or none is.
    """
    positives = int(np.count_nonzero(positive))
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    ranks = float(rankdata(values)[positive].sum())
    return (ranks - positives * (positives + 1) / 2) / positives / negatives


@lru_cache(maxsize=1)
def _ensemble(
    folder: Path, sha256: str, device: str
) -> tuple[EnsembleRecord, tuple[Predictor, ...]]:
    """Load what all tasks of a worker's process share; the hash tells when it is another."""
    record = read_ensemble_record(folder / RECORD_NAME)
    predictors = load_predictors(folder / MEMBERS_FOLDER, record, all_members(record), device)
    return record, predictors


def _scores(
    truth: NDArray[np.uint8],
    masks: Mapping[str, NDArray[np.uint8]],
    spacing_mm: Spacing,
    policy: Policy,
) -> dict[str, dict[str, float | None]]:
    # An axis with one member, or a rule that was left as it is, gives the same mask again.
    known: dict[bytes, dict[str, float | None]] = {}
    scores = {}
    for method, mask in masks.items():
        content = hashlib.sha256(np.packbits(mask).tobytes()).digest()
        if content not in known:
            known[content] = scores_of(truth, mask, spacing_mm, policy)
        scores[method] = known[content]
    return scores


def _brain(prepared: PreparedCase) -> NDArray[np.bool_]:
    seen = np.any(prepared.images != 0, axis=0).astype(np.float32)
    return prepared.restore(seen) >= np.float32(0.5)
