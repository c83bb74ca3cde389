"""What a bundle needs beyond the ensemble: its members as ONNX, and the proof that they are.

*Parity* is the largest difference, in probability, between a member asked with PyTorch and the
same one asked with onnxruntime, over whole cases of the validation patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from strokeseg.config import DataConfig
from strokeseg.errors import CaseError, UserError
from strokeseg.experiment import Experiment
from strokeseg.imaging.cases import Case
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.learning.checkpoint import Member, load_member
from strokeseg.learning.ensemble_record import MEMBERS_FOLDER, EnsembleRecord
from strokeseg.learning.onnx_experts import onnx_expert, onnx_name
from strokeseg.learning.onnx_export import onnx_bytes
from strokeseg.learning.slicewise import predict_volume
from strokeseg.learning.torch_experts import torch_expert
from strokeseg.preparation.record import Preparation, changed_files

LARGEST_DIFFERENCE = 1e-4
_PARITY_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared.

    Attributes:
        cases: Names of the cases.
        largest_difference: In probability, over all members and voxels.
    """

    cases: tuple[str, ...]
    largest_difference: float


def export_members(
    folder: Path, record: EnsembleRecord, prepared: Mapping[str, PreparedCase]
) -> tuple[dict[str, bytes], Parity]:
    """Return every member's ONNX file, by the name of its safetensors, and their parity.

    Args:
        folder: The ensemble's.
        record: What is exported of it.
        prepared: Real cases, by name.

    Raises:
        UserError: When a member cannot be read, or differs by more than `LARGEST_DIFFERENCE`.
    """
    files, differences = {}, []
    for axis, names in record.members.items():
        for name in names:
            member = load_member(folder / MEMBERS_FOLDER / name)
            files[name] = onnx_bytes(member)
            differences.append(
                _difference(name, axis, member, files[name], record, tuple(prepared.values()))
            )
    return files, Parity(cases=tuple(prepared), largest_difference=max(differences))


def parity_cases(
    experiment: Experiment, preparation: Preparation, record: EnsembleRecord
) -> dict[str, PreparedCase]:
    """Prepare the first validation cases that can be read, by name.

    Raises:
        UserError: When there is none.
    """
    side = str(experiment.config.splits.validation_fold)
    prepared: dict[str, PreparedCase] = {}
    reasons = []
    for name in preparation.names(side):
        if len(prepared) == _PARITY_CASES:
            break
        try:
            prepared[name] = _prepare(experiment, preparation.cases[name], record)
        except CaseError as error:
            reasons.append(f"{name}: {error}")
    if not prepared:
        raise UserError(
            f"{experiment.cases_csv}: no validation case can be read to compare PyTorch with "
            f"onnxruntime ({'; '.join(reasons) or 'there is none'}); restore the files"
        )
    return prepared


def _prepare(experiment: Experiment, case: Case, record: EnsembleRecord) -> PreparedCase:
    if changed := changed_files(experiment, case):
        raise CaseError(f"{', '.join(changed)}: not as it was when the split was drawn; restore it")
    data: DataConfig = experiment.config.data
    return prepare_case(
        case.images,
        sequences=record.sequences,
        lesion_labels=data.lesion_labels,
        reference=record.reference,
        spacing_mm=record.spacing_mm,
        faults=case.faults,
    )


def _difference(
    name: str,
    axis: str,
    member: Member,
    content: bytes,
    record: EnsembleRecord,
    cases: Sequence[PreparedCase],
) -> float:
    ours = torch_expert(name, member)
    theirs = onnx_expert(Path(onnx_name(name)), content, axis, record)
    largest = max(
        float(np.abs(predict_volume(ours, case.images) - predict_volume(theirs, case.images)).max())
        for case in cases
    )
    if largest > LARGEST_DIFFERENCE:
        raise UserError(
            f"{name}: onnxruntime's probabilities differ from PyTorch's by up to {largest:.2g}, "
            f"more than {LARGEST_DIFFERENCE:g}; nothing was exported; try other versions of torch "
            "and onnxruntime"
        )
    return largest
