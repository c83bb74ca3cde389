"""Evaluation of a prepared experiment with untrained networks, looked at from outside."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import strokeseg.evaluate
from strokeseg.ensemble.torch_predictor import load_ensemble
from strokeseg.ensemble.vote import segment
from strokeseg.evaluation.cautions import caution_of
from strokeseg.imaging.metrics import score_masks
from strokeseg.imaging.prepared import prepare_case
from strokeseg.records.ensemble import RECORD_NAME, read_ensemble_record
from strokeseg.records.preparation import read_preparation
from strokeseg.records.summary import current_summary, read_scores
from strokeseg.storage.files import read_json, write_json

Launch = Callable[..., Any]

AXES = ("axial", "coronal", "sagittal")
METHODS = {
    **dict.fromkeys(AXES, "axis"),
    **dict.fromkeys(("vote", "vote_hard", "vote_soft"), "vote"),
    **dict.fromkeys(("vote_pretrained", "vote_scratch"), "comparison"),
    **dict.fromkeys(("axial-0000", "axial-0001", "coronal-0000", "sagittal-0000"), "member"),
    "sagittal-0001": "member",
}


def cases_of(place: Any) -> list[str]:
    return list(read_preparation(place.experiment).names("test"))


def mask_of(folder: Path, case: str, method: str) -> Any:
    path = folder / f"sub-{case}_space-orig_label-L_desc-{method}_mask.nii.gz"
    return np.asarray(nibabel.load(path).dataobj)


def truth_path(place: Any, case: str) -> Path:
    path = read_preparation(place.experiment).cases[case].mask
    assert path is not None
    return path


def test_every_case_is_scored_by_every_method(evaluated: Any) -> None:
    rows = read_scores(evaluated.experiment.metrics_csv("test"))
    cases = cases_of(evaluated)
    assert len(cases) == 2
    expected = Counter((case, method) for case in cases for method in METHODS)
    assert Counter((row.case, row.method) for row in rows) == expected
    assert {row.method: row.kind for row in rows} == METHODS
    assert {row.patient for row in rows} == set(cases)


def test_the_vote_is_that_of_the_ensemble_and_scored_as_written(evaluated: Any) -> None:
    experiment = evaluated.experiment
    rows = {
        (row.case, row.method): row.values for row in read_scores(experiment.metrics_csv("test"))
    }
    ensemble = load_ensemble(experiment.ensemble_folder)
    for name in cases_of(evaluated):
        case = read_preparation(experiment).cases[name]
        prepared = prepare_case(
            case.images,
            sequences=ensemble.record.sequences,
            mask=case.mask,
            spacing_mm=ensemble.record.spacing_mm,
        )
        decision = segment(ensemble, prepared)
        for method, mask in {**decision.axis_masks, "vote": decision.mask}.items():
            written = mask_of(experiment.masks_folder("test"), name, method)
            np.testing.assert_array_equal(written, mask)
            assert prepared.native_mask is not None
            scores = score_masks(prepared.native_mask, mask, prepared.native_grid.spacing_mm)
            assert rows[name, method] == pytest.approx(asdict(scores))


def test_disagreement_is_written_on_the_grid_of_the_case(evaluated: Any) -> None:
    experiment = evaluated.experiment
    for case in cases_of(evaluated):
        (path,) = experiment.uncertainty_folder("test").glob(f"sub-{case}_*")
        image, truth = nibabel.load(path), nibabel.load(truth_path(evaluated, case))
        values = np.asarray(image.dataobj)
        assert image.shape == truth.shape and values.dtype == np.float32
        np.testing.assert_allclose(image.affine, truth.affine, atol=1e-5)
        assert 0 <= values.min() < values.max() <= 1


def test_the_summary_says_what_was_evaluated(evaluated: Any) -> None:
    summary = current_summary(evaluated.experiment)
    assert summary is not None
    preparation = read_preparation(evaluated.experiment)
    assert (summary["on"], summary["policy"], summary["caution"]) == ("test", "isles22", None)
    assert (summary["cases"], summary["patients"], summary["failed"]) == (2, 2, {})
    assert summary["splits_hash"] == preparation.splits_hash
    assert summary["preparation_hash"] == preparation.fingerprint
    assert summary["versions"].keys() == {"python", "torch", "ray", "numpy"}
    assert {name: found["kind"] for name, found in summary["methods"].items()} == METHODS
    tested = [(test["first"], test["second"]) for test in summary["tests"]]
    assert tested == [*(("vote", axis) for axis in AXES), ("vote_pretrained", "vote_scratch")]
    assert [found["case"] for found in summary["disagreement"]["cases"]] == cases_of(evaluated)
    rows = read_scores(evaluated.experiment.metrics_csv("test"))
    dice = [row.values["dice"] for row in rows if row.method == "vote_soft"]
    found = summary["methods"]["vote_soft"]["metrics"]["dice"]
    assert found["mean"] == pytest.approx(np.mean(dice))


def test_an_interrupted_evaluation_does_only_what_is_missing(spare: Any, launch: Launch) -> None:
    experiment = spare.experiment
    first, second = cases_of(spare)
    before = experiment.metrics_csv("test").read_bytes()
    # As if it had been killed before the second case was done.
    experiment.summary_json("test").unlink()
    (experiment.scored_folder("test") / f"{second}.json").unlink()
    stamps = {
        path: path.stat().st_mtime_ns
        for path in experiment.masks_folder("test").glob(f"sub-{first}_*")
    }
    outcome = launch(strokeseg.evaluate.main, *spare.options)
    assert outcome.code == 0, outcome.err
    assert "1 of 2 cases were scored before" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert experiment.metrics_csv("test").read_bytes() == before


@pytest.mark.parametrize("change", ["policy", "ensemble", "mask", "version"])
def test_what_a_result_depends_on_makes_it_again(spare: Any, launch: Launch, change: str) -> None:
    experiment = spare.experiment
    options = list(spare.options)
    case = cases_of(spare)[0]
    if change == "policy":
        options += ["--policy", "nnunet"]
    elif change == "ensemble":
        path = experiment.ensemble_folder / "ensemble.json"
        write_json(path, {**read_json(path), "rule": {"threshold": 0.6}})
    elif change == "version":
        # Another one may have known other metrics.
        for path in experiment.scored_folder("test").glob("*.json"):
            kept = read_json(path)
            write_json(path, {"key": "that of another version", "rows": kept["rows"][:1]})
    else:
        for path in experiment.masks_folder("test").glob(f"sub-{case}_*axial*"):
            path.unlink()
    outcome = launch(strokeseg.evaluate.main, *options)
    assert outcome.code == 0, outcome.err
    assert ("1 of 2 cases were scored before" in outcome.out) == (change == "mask")
    assert "2 of 2" not in outcome.out
    assert len(list(experiment.masks_folder("test").glob(f"sub-{case}_*"))) == len(AXES) + 1


def write_baseline(place: Any, folder: Path, case: str, name: str, keep: float = 1.0) -> Path:
    """The truth with 2 for lesion, without its upper slices."""
    image = nibabel.load(truth_path(place, case))
    voxels = 2 * np.asarray(image.dataobj).astype(np.uint8)
    voxels[:, :, int(keep * voxels.shape[2]) :] = 0
    folder.mkdir(exist_ok=True)
    path = folder / name
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    return path


def test_a_baseline_joins_the_tables_and_stays(spare: Any, tmp_path: Path, launch: Launch) -> None:
    first, second = cases_of(spare)
    write_baseline(spare, tmp_path / "masks", first, f"{first}.nii.gz")
    write_baseline(spare, tmp_path / "masks", second, f"sub-{second}_label-L_mask.nii")
    outcome = launch(
        strokeseg.evaluate.main,
        *(*spare.options, "--predictions", tmp_path / "masks", "--name", "nnunet"),
    )
    assert outcome.code == 0, outcome.err
    # No prediction was computed again.
    assert "2 of 2 cases were scored before" in outcome.out
    summary = read_json(spare.experiment.summary_json("test"))
    baseline = summary["methods"]["nnunet"]
    assert (baseline["kind"], baseline["cases"], baseline["metrics"]["dice"]["mean"]) == (
        "baseline",
        2,
        1.0,
    )
    assert ("vote", "nnunet") in [(test["first"], test["second"]) for test in summary["tests"]]
    # Another evaluation still shows it, though its masks are gone.
    shutil.rmtree(tmp_path / "masks")
    outcome = launch(strokeseg.evaluate.main, *spare.options)
    assert outcome.code == 0, outcome.err
    assert read_json(spare.experiment.summary_json("test"))["methods"]["nnunet"] == baseline
    # By another policy its scores would be others.
    outcome = launch(strokeseg.evaluate.main, *spare.options, "--policy", "isles15")
    assert outcome.code == 0 and "nnunet: left out" in outcome.err
    assert "nnunet" not in read_json(spare.experiment.summary_json("test"))["methods"]


def test_masks_that_do_not_fit_are_listed_and_the_others_count(
    spare: Any, tmp_path: Path, launch: Launch
) -> None:
    first, second = cases_of(spare)
    write_baseline(spare, tmp_path / "a", first, f"{first}.nii.gz")
    path = write_baseline(spare, tmp_path / "b", first, f"{first}.nii.gz")
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[1:], image.affine), path)
    write_baseline(spare, tmp_path / "b", second, f"{second}.nii.gz")
    outcome = launch(
        strokeseg.evaluate.main,
        *(*spare.options, "--predictions", tmp_path / "a", "--name", "one"),
        *("--predictions", tmp_path / "b", "--name", "two"),
    )
    assert outcome.code == 1
    summary = read_json(spare.experiment.summary_json("test"))
    failed = summary["baselines_failed"]
    assert summary["failed"] == {}
    assert failed.keys() == {f"{second} (one)", f"{first} (two)"}
    assert "got none" in failed[f"{second} (one)"]
    assert "must be on the grid of" in failed[f"{first} (two)"]
    assert f"failed: case {first} (two)" in outcome.err
    # What is kept of baselines that were not given again is no failure of a later evaluation.
    again = launch(strokeseg.evaluate.main, *spare.options)
    assert again.code == 0 and f"failed: case {first} (two)" in again.err


def test_nothing_is_kept_of_a_baseline_without_a_mask_that_can_be_scored(
    spare: Any, tmp_path: Path, launch: Launch
) -> None:
    (tmp_path / "a").mkdir()
    for case in cases_of(spare):
        path = write_baseline(spare, tmp_path / "a" / "fold_0", case, f"{case}.nii.gz")
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    outcome = launch(
        strokeseg.evaluate.main, *(*spare.options, "--predictions", tmp_path / "a", "--name", "all")
    )
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "none of its masks could be scored" in line and f"fold_0/{path.name}" in line
    assert launch(strokeseg.evaluate.main, *spare.options).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--predictions", "{folder}"), ("one name of its own", "1 folders and no name")),
        (("--predictions", "{folder}", "--name", "vote_soft"), ("vote_soft", "choose another")),
        (("--predictions", "{folder}", "--name", "a/b"), ("a/b", "letters, digits")),
        (("--predictions", "{folder}/none", "--name", "x"), ("no such folder",)),
        (("--predictions", "{folder}", "--name", "x"), ("holds no mask", "nii.gz")),
    ],
)
def test_a_baseline_that_is_none_is_refused_in_one_line(
    spare: Any, tmp_path: Path, launch: Launch, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    before = spare.experiment.summary_json("test").read_bytes()
    outcome = launch(
        strokeseg.evaluate.main,
        *(*spare.options, *(option.format(folder=folder) for option in options)),
    )
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert all(word in line for word in words)
    assert spare.experiment.summary_json("test").read_bytes() == before


def test_a_case_that_changed_fails_alone(spare: Any, tmp_path: Path, launch: Launch) -> None:
    experiment = spare.experiment
    case, other = cases_of(spare)
    # The copy's preparation still names the files of the original: point one of them elsewhere.
    moved = tmp_path / "other.nii"
    moved.write_bytes(b"no scan")
    text = experiment.cases_csv.read_text()
    path = read_preparation(experiment).cases[case].images["T1"]
    experiment.cases_csv.write_text(text.replace(str(path), str(moved)))
    outcome = launch(strokeseg.evaluate.main, *spare.options)
    assert outcome.code == 1
    summary = read_json(experiment.summary_json("test"))
    assert summary["failed"].keys() == {case}
    assert "not as it was when the split was drawn" in summary["failed"][case]
    assert {row.case for row in read_scores(experiment.metrics_csv("test"))} == {other}
    # What was found of it before is not shown as if it held.
    assert not list(experiment.masks_folder("test").glob(f"sub-{case}_*"))


def test_scores_of_validation_patients_come_with_a_caution(spare: Any, launch: Launch) -> None:
    outcome = launch(strokeseg.evaluate.main, *spare.options, "--on", "validation")
    assert outcome.code == 0, outcome.err
    assert "Caution: these patients chose the trials" in outcome.out
    summary = json.loads(spare.experiment.summary_json("validation").read_text())
    assert "flatter" in summary["caution"]
    assert current_summary(spare.experiment)["on"] == "test"  # type: ignore[index]


def test_members_that_were_trained_on_the_patients_are_reported(evaluated: Any) -> None:
    experiment = evaluated.experiment
    record = read_ensemble_record(experiment.ensemble_folder / RECORD_NAME)
    # All five members were scored on fold 0, so the patients of fold 1 trained them.
    splits = experiment.config.splits.model_copy(update={"validation_fold": 1})
    other = replace(experiment, config=experiment.config.model_copy(update={"splits": splits}))
    caution = caution_of(other, record, "validation")
    assert caution is not None and "5 of the 5 members were trained on these" in caution
    assert caution_of(other, record, "test") is None
