"""Candidates predict the right patients, once, and never those of the test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from strokeseg.ensemble.slicewise import predict_volume
from strokeseg.ensemble.torch_predictor import as_predictor
from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.prepared import prepare_case
from strokeseg.imaging.slices import AXES
from strokeseg.imaging.sparse_map import pack
from strokeseg.records.experiment import Experiment
from strokeseg.records.leaderboard import read_leaderboard
from strokeseg.records.preparation import Preparation, read_preparation
from strokeseg.selection.candidates import Candidates, find_candidates, unseen_cases
from strokeseg.selection.out_of_fold import collect_evidence
from strokeseg.selection.scores import Evidence
from strokeseg.training.checkpoint import load_member

pytestmark = pytest.mark.usefixtures("local_ray")

Searched = Callable[..., Experiment]


def candidates_of(experiment: Experiment) -> tuple[Preparation, Candidates]:
    preparation = read_preparation(experiment)
    boards = {axis: read_leaderboard(experiment.leaderboard_csv(axis)) for axis in AXES}
    return preparation, find_candidates(experiment, preparation, boards)


def predict(
    experiment: Experiment, preparation: Preparation, candidates: Candidates, cases: list[Case]
) -> list[Evidence]:
    return collect_evidence(
        experiment,
        preparation,
        list(candidates.by_name.values()),
        cases,
        lowest_threshold=0.1,
        device=torch.device("cpu"),
        show=lambda *_: None,
    )


def files_of(experiment: Experiment) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in experiment.candidates_folder.glob("*/*")}


def expected_values(experiment: Experiment, case: Case, file: Path) -> NDArray[np.float32]:
    """One member's prediction of a case, computed here: its probabilities from 0.1, ascending."""
    prepared = prepare_case(
        case.images,
        sequences=experiment.config.data.sequences,
        mask=case.mask,
        spacing_mm=experiment.config.preparation.spacing_mm,
    )
    predictor = as_predictor("x", load_member(file))
    probability = pack(prepared.restore(predict_volume(predictor, prepared.images))).dense()
    return np.sort(probability[probability >= 0.1])


def test_k_fold_candidates_predict_with_the_member_that_has_not_seen_the_patient(
    searched: Searched,
) -> None:
    experiment = searched(folds=(0, 1), k_fold=True)
    preparation, candidates = candidates_of(experiment)
    cases = unseen_cases(preparation, list(candidates.by_name.values()))
    # All four patients that are not locked.
    assert sorted(case.fold or "" for case in cases) == ["0", "0", "1", "1"]
    evidence = predict(experiment, preparation, candidates, cases)
    assert [one.patient for one in evidence] == [case.patient for case in cases]
    for case, found in zip(cases, evidence, strict=True):
        for name in ("axial-0000", "sagittal-0001"):
            file = candidates.by_name[name].files[int(case.fold or "")]
            own = np.sort(found.values[name])
            assert own.max() >= 0.1
            np.testing.assert_array_equal(own[own >= 0.1], expected_values(experiment, case, file))


def test_candidates_of_one_fold_predict_its_patients_only(searched: Searched) -> None:
    experiment = searched(folds=(1,))
    preparation, candidates = candidates_of(experiment)
    cases = unseen_cases(preparation, list(candidates.by_name.values()))
    assert [case.fold for case in cases] == ["1", "1"]


def test_candidates_that_no_patient_was_left_out_by_are_refused(searched: Searched) -> None:
    preparation, candidates = candidates_of(searched(folds=(1,)))
    first, *others = candidates.by_name.values()
    stranger = replace(first, files={0: first.files[1]})
    with pytest.raises(UserError, match="no patient was left out by the training of every"):
        unseen_cases(preparation, [stranger, *others])


def test_a_second_run_computes_only_missing_maps_and_removes_stale_ones(searched: Searched) -> None:
    experiment = searched()
    preparation, candidates = candidates_of(experiment)
    cases = unseen_cases(preparation, list(candidates.by_name.values()))
    first = predict(experiment, preparation, candidates, cases)
    files = files_of(experiment)
    # Two cases; six candidates, the truth and the grid.
    assert len(files) == 2 * (6 + 2)
    stale = experiment.candidates_folder / cases[0].name / "axial-0009-0123456789abcdef.npz"
    stale.write_bytes(b"")
    lost = next(path for path in files if path.name.startswith("coronal-0001"))
    lost.unlink()
    second = predict(experiment, preparation, candidates, cases)
    after = files_of(experiment)
    assert after.keys() == files.keys()
    changed = {path for path in files if after[path] != files[path]}
    # The case of the lost map was read again, which wrote its truth and grid again.
    assert {path.parent for path in changed} == {lost.parent}
    assert {path.name.split("-")[0] for path in changed} == {"coronal", "truth", "grid"}
    for one, other in zip(first, second, strict=True):
        assert one.values.keys() == other.values.keys()
        for name, values in one.values.items():
            np.testing.assert_array_equal(values, other.values[name])


def test_test_patients_are_refused(searched: Searched) -> None:
    experiment = searched()
    preparation, candidates = candidates_of(experiment)
    locked = [preparation.cases[name] for name in preparation.names("test")]
    assert locked
    with pytest.raises(UserError, match="locked test cases, by which no ensemble may be chosen"):
        predict(experiment, preparation, candidates, locked)
    assert not experiment.candidates_folder.exists()


def test_a_case_that_has_changed_since_the_split_is_refused(searched: Searched) -> None:
    experiment = searched()
    preparation, candidates = candidates_of(experiment)
    (case, *_) = unseen_cases(preparation, list(candidates.by_name.values()))
    moved = replace(case, images={**case.images, "DWI": case.images["FLAIR"]})
    with pytest.raises(UserError, match="not as it was when the split was drawn"):
        predict(experiment, preparation, candidates, [moved])
