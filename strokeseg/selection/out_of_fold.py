"""The out-of-fold predictions: every candidate's map of every validation patient.

A case is one task: it is read and prepared once, and the maps that are not there yet are computed,
one candidate after another. The maps stay in a folder, so that an interrupted promotion goes on,
and another choice needs no prediction. A map's file is named after all that made it:
the member's bytes, the prepared data and the code; files of other names are *stale*.
Probabilities below 0.001 are kept as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from strokeseg.ensemble.torch_predictor import as_predictor
from strokeseg.ensemble.vote import predict_members
from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.sparse_map import pack, read_sparse_map
from strokeseg.preparation.tasks import prepare_as_configured, spread
from strokeseg.process.progress import Show
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.preparation import Preparation, changed_files
from strokeseg.selection.candidates import Candidate, refuse_test
from strokeseg.selection.scores import Evidence, gather_evidence
from strokeseg.storage.files import file_sha256, read_json, values_sha256, write_json
from strokeseg.training.checkpoint import load_member

# A case is read and prepared on the CPU for as long as several networks take on a GPU.
_GPU_SHARE = 0.25
_KEY_LENGTH = 16
# All of a brain is a little probable. Its faintest voxels are most of a map, and without them no
# mean of probabilities changes by more than this.
_FAINTEST = 1e-3


@dataclass(frozen=True, kw_only=True)
class CandidateMembers:
    """The members by which a candidate predicts the cases of some folds.

    Attributes:
        name: The candidate's name.
        members: By fold, the file of the member that has not seen this fold, and its hash.
    """

    name: str
    members: Mapping[int, tuple[Path, str]]


def collect_evidence(
    experiment: Experiment,
    preparation: Preparation,
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    *,
    lowest_threshold: float,
    device: torch.device,
    show: Show,
) -> list[Evidence]:
    """Compute the predictions that are missing, in the Ray that this process is connected to.

    Args:
        experiment: The maps go into its `candidates_folder`.
        candidates: The trials that predict.
        cases: The cases to predict; no member may have been trained on a case that it predicts.
        lowest_threshold: No choice will have a lower one.
        show: Called after every case.

    Raises:
        UserError: When a case belongs to the test set, has changed since it was prepared, or
            cannot be prepared any more.
    """
    refuse_test(cases)
    if changed := [path for case in cases for path in changed_files(experiment, case)]:
        raise UserError(f"{', '.join(changed)}: not as it was when the split was drawn; restore it")
    task = PredictionTask(
        experiment.config,
        folder=experiment.candidates_folder,
        candidates=[_members(candidate) for candidate in candidates],
        made_of=[preparation.fingerprint, code_version()],
        lowest_threshold=lowest_threshold,
        device=device,
    )
    _remove_stale(
        experiment.candidates_folder, {name for case in cases for name in task.files(case)}
    )
    gpus = _GPU_SHARE if device.type == "cuda" else 0.0
    results = spread(task, cases, show, gpus=gpus)
    if faults := [result for result in results if isinstance(result, str)]:
        raise UserError("; ".join(faults))
    return results


class PredictionTask:
    """Predicts one case with every candidate and gathers what the choices need."""

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        folder: Path,
        candidates: Sequence[CandidateMembers],
        made_of: Sequence[str],
        lowest_threshold: float,
        device: torch.device,
    ) -> None:
        self._config = config
        self._folder = folder
        self._candidates = candidates
        self._made_of = made_of
        self._lowest_threshold = lowest_threshold
        self._device = device

    def __call__(self, case: Case) -> Evidence | str:
        """Return the evidence, or why there is none."""
        # What a task raises reaches the driver wrapped beyond recognition.
        try:
            return self._evidence(case)
        except UserError as error:
            return f"{case.name}: {error}"

    def files(self, case: Case) -> list[Path]:
        """All files that this case has when it is done."""
        maps = [self._map_file(case, one) for one in self._candidates]
        return [*maps, self._truth_file(case), self._grid_file(case)]

    def _evidence(self, case: Case) -> Evidence:
        missing = [one for one in self._candidates if not self._map_file(case, one).exists()]
        if missing or not self._grid_file(case).exists():
            self._predict(case, missing)
        maps = {one.name: read_sparse_map(self._map_file(case, one)) for one in self._candidates}
        x, y, z = read_json(self._grid_file(case))["spacing_mm"]
        truth: NDArray[np.uint8] = (read_sparse_map(self._truth_file(case)).dense() > 0).astype(
            np.uint8
        )
        return gather_evidence(case.patient, maps, truth, (x, y, z), self._lowest_threshold)

    def _predict(self, case: Case, candidates: Iterable[CandidateMembers]) -> None:
        prepared = prepare_as_configured(case, self._config)
        if prepared.native_mask is None:
            raise UserError("has lost its lesion mask since it was prepared; restore it")
        pack(prepared.native_mask.astype(np.float32)).save(self._truth_file(case))
        spacing_mm = prepared.native_grid.spacing_mm
        write_json(self._grid_file(case), {"spacing_mm": spacing_mm})
        for candidate in candidates:
            path, _ = candidate.members[_fold(case)]
            # One network at a time: a worker's memory does not grow with the candidates.
            predictor = as_predictor(candidate.name, load_member(path), self._device)
            ((_, probability),) = predict_members([predictor], prepared)
            probability[probability < _FAINTEST] = 0
            pack(probability).save(self._map_file(case, candidate))

    def _map_file(self, case: Case, candidate: CandidateMembers) -> Path:
        _, sha256 = candidate.members[_fold(case)]
        return self._file(case, candidate.name, sha256, ".npz")

    def _truth_file(self, case: Case) -> Path:
        return self._file(case, "truth", "", ".npz")

    def _grid_file(self, case: Case) -> Path:
        return self._file(case, "grid", "", ".json")

    def _file(self, case: Case, name: str, sha256: str, ending: str) -> Path:
        key = values_sha256([*self._made_of, sha256])[:_KEY_LENGTH]
        return self._folder / case.name / f"{name}-{key}{ending}"


def _members(candidate: Candidate) -> CandidateMembers:
    members = {fold: (path, file_sha256(path)) for fold, path in candidate.files.items()}
    return CandidateMembers(name=candidate.name, members=members)


def _fold(case: Case) -> int:
    if case.fold is None or not case.fold.isdigit():
        raise ValueError(f"case {case.name} must be in a fold, got {case.fold!r}")
    return int(case.fold)


def _remove_stale(folder: Path, wanted: set[Path]) -> None:
    for path in folder.glob("*/*"):
        if path not in wanted:
            path.unlink(missing_ok=True)
