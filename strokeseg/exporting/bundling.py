"""What a bundle needs beyond the ensemble: its members as ONNX, and the proof that they are.

*Parity* is the largest difference, in probability, between a member computed with PyTorch and the
same one computed with onnxruntime, over whole cases of the validation patients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from strokeseg.ensemble.onnx_predictor import onnx_name, read_onnx_predictor
from strokeseg.ensemble.slicewise import predict_volume
from strokeseg.ensemble.torch_predictor import as_predictor
from strokeseg.errors import CaseError, UserError
from strokeseg.exporting.model_card import described_data, model_card
from strokeseg.exporting.monai_files import (
    SCHEMA_NAME,
    inference_workflow,
    metadata,
    metadata_schema,
)
from strokeseg.exporting.onnx_export import onnx_bytes
from strokeseg.imaging.cases import Case
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.process.progress import Show
from strokeseg.records.ensemble import MEMBERS_FOLDER, EnsembleRecord
from strokeseg.records.experiment import Experiment
from strokeseg.records.phrases import count
from strokeseg.records.preparation import Preparation, changed_files
from strokeseg.records.scores import Summary
from strokeseg.records.summary import VOTE, current_summary, read_choice
from strokeseg.training.checkpoint import Member, load_member

LARGEST_DIFFERENCE = 1e-4
_LICENCE = """\
The weights in this bundle belong to whoever trained and exported them, and so does the
decision about their licence: replace this text by it before the bundle is passed on.
Weights that were pretrained elsewhere keep the terms of their source. The software that
made the bundle, strokeseg, is licensed under Apache-2.0.
"""
_VERSIONED = (
    *("numpy", "onnxruntime", "nibabel", "scipy", "connected-components-3d"),
    *("torch", "onnx", "safetensors"),
)
_PARITY_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared.

    Attributes:
        cases: How many; a bundle travels, and names none.
        largest_difference: In probability, over all members and voxels.
    """

    cases: int
    largest_difference: float

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"ONNX: at most {self.largest_difference:.1e} from PyTorch in probability, on "
            f"{count(self.cases, 'validation case')}"
        )


def accompanying_files(
    experiment: Experiment, preparation: Preparation, record: EnsembleRecord, parity: Parity
) -> dict[str, str]:
    """Return what a bundle holds beside the ensemble, by name: licence, card, metadata.

    Raises:
        UserError: When a record of the experiment cannot be read.
    """
    summary = current_summary(experiment)
    card = model_card(
        experiment,
        record,
        preparation,
        summary=summary,
        choice=read_choice(experiment),
        parity=f"{parity}.",
    )
    description = metadata(
        record,
        description="An ensemble of 2D networks along several axes whose masks vote in 3D.",
        data_source=described_data(experiment, preparation),
        metrics=_test_means(summary),
        versions={name: version(name) for name in _VERSIONED},
        facts={
            "preparation_hash": record.preparation_hash,
            "splits_hash": preparation.splits_hash,
            "spacing_mm": record.spacing_mm,
            "simulated": experiment.config.data.is_simulated,
            "onnx": asdict(parity),
        },
    )
    return {
        "LICENSE": _LICENCE,
        "docs/README.md": card,
        "configs/metadata.json": _text(description),
        SCHEMA_NAME: _text(metadata_schema()),
        "configs/inference.json": _text(inference_workflow()),
    }


def _test_means(summary: Summary | None) -> dict[str, float]:
    if summary is None or summary["on"] != "test":
        return {}
    metrics = summary["methods"][VOTE]["metrics"]
    return {
        f"mean_{name}": statistic["mean"]
        for name, statistic in metrics.items()
        if statistic["mean"] is not None
    }


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def export_members(
    folder: Path, record: EnsembleRecord, prepared: Mapping[str, PreparedCase], show: Show
) -> tuple[dict[str, bytes], Parity]:
    """Return every member's ONNX file, by the name of its safetensors, and their parity.

    Args:
        record: What is exported of it.
        prepared: Real cases, by name.
        show: Called after every member.

    Raises:
        UserError: When a member cannot be read, or differs by more than `LARGEST_DIFFERENCE`.
    """
    files: dict[str, bytes] = {}
    differences = []
    places = [(axis, name) for axis, names in record.members.items() for name in names]
    for index, (axis, name) in enumerate(places):
        show(index, len(places), name)
        member = load_member(folder / MEMBERS_FOLDER / name)
        files[name] = onnx_bytes(member)
        differences.append(
            _difference(name, axis, member, files[name], record, tuple(prepared.values()))
        )
    show(len(places), len(places), "")
    return files, Parity(cases=len(prepared), largest_difference=max(differences))


def parity_cases(
    experiment: Experiment, preparation: Preparation, record: EnsembleRecord
) -> dict[str, PreparedCase]:
    """Prepare the first validation cases that can be read, by name.

    Raises:
        UserError: When there is none.
    """
    subset = str(experiment.config.splits.validation_fold)
    prepared: dict[str, PreparedCase] = {}
    reasons = []
    for name in preparation.names(subset):
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
    return prepare_case(
        case.images,
        sequences=record.sequences,
        lesion_labels=experiment.config.data.lesion_labels,
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
    ours = as_predictor(name, member)
    theirs = read_onnx_predictor(Path(onnx_name(name)), content, axis, record)
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
