"""One tiny experiment through every command, looked at from outside."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import optuna
import pyarrow.dataset
import pytest
from finished_report import SIMULATED, cautions_of, few_patients
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from plants import CASE
from shown_trials import scalars_of, shown_trial, status_of
from tensorboard.plugins.hparams import api_pb2, metadata
from tiny_experiment import EPOCHS, TRIALS, Place, rows_of, write_experiment

import strokeseg.evaluate
import strokeseg.predict
import strokeseg.prepare
import strokeseg.promote
import strokeseg.report
import strokeseg.run
import strokeseg.search
from strokeseg.records.member_header import read_member_record

AXES = ("axial", "coronal", "sagittal")
VOTES = ("vote", "vote_hard", "vote_soft", "vote_pretrained", "vote_scratch")
PROGRESS_SECONDS = 180.0


def methods_of(place: Place) -> set[str]:
    """All that evaluation scores: axes, votes, and every member of the ensemble."""
    members = (place.folder / "ensemble" / "members").iterdir()
    return {*AXES, *VOTES, *(path.stem for path in members)}


def trials_of(journal: Path, axis: str) -> list[optuna.trial.FrozenTrial]:
    """Read a journal with plain Optuna."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=axis, storage=storage).trials


def image_of(cases: Path, case: str, tag: str) -> Path:
    (path,) = (cases / case).glob(f"VSD.*.{tag}.*/*.nii*")
    return path


def voxels_of(path: Path) -> Any:
    return np.asarray(nibabel.load(path).dataobj)


def test_run_says_what_it_found_and_what_comes_next(finished: Place) -> None:
    for word in (
        *("vote", "unseen test cases", "Next:", str(finished.folder / "bundle.zip")),
        f"axial: no parameter importances, since {TRIALS} trials have a score",
    ):
        assert word in finished.output


def test_run_leaves_every_file_of_the_contract_and_nothing_half_written(finished: Place) -> None:
    files = [
        "prepared/cases.csv",
        "prepared/splits.json",
        "prepared/preparation.json",
        "prepared/validation.csv",
        *(f"search/{axis}/{name}" for axis in AXES for name in ("leaderboard.csv", "journal.log")),
        "ensemble/ensemble.json",
        "evaluation/metrics.csv",
        "evaluation/summary.json",
        "report/index.html",
        "report/report.md",
        "bundle.zip",
    ]
    for name in files:
        assert (finished.folder / name).stat().st_size, name
    assert not [path for path in finished.folder.rglob("*") if ".partial" in path.name]
    # Tune's own folder, and the states of trials that have ended, are of no use any more.
    assert not list(finished.folder.glob("search/*/tune"))
    assert not list(finished.folder.rglob("state.pt"))


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_its_trials_with_score_and_parameters(finished: Place, axis: str) -> None:
    rows = finished.leaderboard(axis)
    columns = ["trial", "state", "dice", "best_epoch", "epochs_run", "seconds", "reason"]
    assert list(rows[0])[: len(columns)] == columns
    assert sorted(row["trial"] for row in rows) == ["0", "1"]
    scores = [float(row["dice"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= 0 and scores[0] <= 1
    for row in rows:
        assert (row["state"], row["epochs_run"]) == ("COMPLETE", str(EPOCHS))
        assert float(row["seconds"]) > 0
        assert row["encoder_depth"] == "3" and float(row["learning_rate"]) == 3e-3
    started = {row["encoder"]: row["pretrained"] for row in rows}
    assert started == {"resnet18": "False", "tu-tf_efficientnet_lite0": "True"}


@pytest.mark.parametrize("axis", AXES)
def test_journal_and_leaderboard_agree(finished: Place, axis: str) -> None:
    board = {int(row["trial"]): float(row["dice"]) for row in finished.leaderboard(axis)}
    for trial in trials_of(finished.journal(axis), axis):
        assert trial.state is optuna.trial.TrialState.COMPLETE
        assert list(trial.intermediate_values) == [1, 2]
        assert trial.value == max(trial.intermediate_values.values())
        assert board[trial.number] == pytest.approx(trial.value, abs=1e-6)


def test_tensorboard_shows_every_epoch(finished: Place) -> None:
    for axis in AXES:
        for trial in trials_of(finished.journal(axis), axis):
            events = shown_trial(finished, axis, f"{trial.number:04d}")
            shown = dict(scalars_of(events, "validation/dice"))
            assert shown == pytest.approx(trial.intermediate_values)
            assert set(events.Tags()["scalars"]) >= {
                *("loss/total", "loss/dice", "loss/cross_entropy", "training/learning_rate"),
                *("training/slices_per_second", "training/wait_share", "training/memory_gb"),
            }


def test_tensorboard_has_a_table_of_parameters_and_best_scores(finished: Place) -> None:
    for axis in AXES:
        content = shown_trial(finished, axis).PluginTagToContent("hparams")
        described = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
        # Depth and batch size are fixed.
        assert {info.name for info in described.hparam_infos} == {
            *("encoder", "pretrained", "learning_rate"),
        }
        for trial in trials_of(finished.journal(axis), axis):
            events = shown_trial(finished, axis, f"{trial.number:04d}")
            assert status_of(events) == api_pb2.STATUS_SUCCESS
            last = {
                metric.name.tag: scalars_of(events, metric.name.tag)[-1][1]
                for metric in described.metric_infos
            }
            assert last == pytest.approx(
                {"validation/best_dice": trial.value, "training/epochs_run": EPOCHS}
            )


def test_tensorboard_shows_the_slices_of_a_trials_best_epoch(finished: Place) -> None:
    for axis in AXES:
        for row in finished.leaderboard(axis):
            name = f"{int(row['trial']):04d}"
            events = shown_trial(finished, axis, name, "slices")
            assert {"slices/best", "slices/worst"} <= set(events.Tags()["images"])
            for tag in events.Tags()["images"]:
                assert [image.step for image in events.Images(tag)] == [int(row["best_epoch"])]
            folder = finished.folder / "search" / axis / "tensorboard" / name / "slices"
            (file,) = folder.iterdir()
            assert file.stat().st_size < 200_000


def test_the_journal_opens_in_optuna_dashboard(finished: Place, tmp_path: Path) -> None:
    place = finished.copy(tmp_path, "search/axial")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dashboard = subprocess.Popen(
        [
            *(sys.executable, "-m", "optuna_dashboard._cli", str(place.journal("axial"))),
            *("--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = f"http://127.0.0.1:{port}/api/studies"
        (study,) = _answer(dashboard, address)["study_summaries"]
        assert (study["study_name"], study["directions"]) == ("axial", ["maximize"])
        shown = _answer(dashboard, f"{address}/{study['study_id']}")["trials"]
    finally:
        dashboard.kill()
        dashboard.communicate()
    for trial, original in zip(shown, trials_of(place.journal("axial"), "axial"), strict=True):
        assert (trial["number"], trial["state"]) == (original.number, "Complete")
        assert trial["values"] == original.values
        assert {param["name"] for param in trial["params"]} == set(original.params)


def _answer(server: subprocess.Popen[str], address: str) -> Any:
    """Return what a server that has just been started says in JSON, once it answers."""
    deadline = time.monotonic() + PROGRESS_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            try:
                out, _ = server.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"the server ended by itself: {server.returncode} {out}")
    pytest.fail(f"{address}: no answer in {PROGRESS_SECONDS:g} s")


def test_test_patients_are_in_no_slice(finished: Place) -> None:
    splits = json.loads((finished.folder / "prepared" / "splits.json").read_text())
    in_folds = {patient for fold in splits["folds"] for patient in fold}
    # Two fifths of 6 patients.
    assert len(splits["test"]) == 2 and len(in_folds) == 4
    for axis in AXES:
        table = pyarrow.dataset.dataset(
            finished.folder / "prepared" / "slices" / f"axis={axis}", format="parquet"
        ).to_table(columns=["patient"])
        assert set(table["patient"].to_pylist()) == in_folds


def test_every_test_case_is_scored_by_every_method(finished: Place) -> None:
    rows = rows_of(finished.folder / "evaluation" / "metrics.csv")
    metrics = ["dice", "sensitivity", "precision", "hd95_mm"]
    assert list(rows[0])[:8] == ["case", "patient", "method", "kind", *metrics]
    expected = {(case, method) for case in finished.test_cases() for method in methods_of(finished)}
    assert Counter((row["case"], row["method"]) for row in rows) == Counter(expected)
    for row in rows:
        assert all(0 <= float(row[metric]) <= 1 for metric in metrics[:3])
        assert float(row["hd95_mm"]) >= 0 and float(row["volume_difference_ml"]) >= 0


def test_the_summary_has_a_mean_and_an_interval_for_every_method(finished: Place) -> None:
    summary = json.loads((finished.folder / "evaluation" / "summary.json").read_text())
    assert (summary["on"], summary["policy"], summary["failed"]) == ("test", "isles22", {})
    assert summary["methods"].keys() == methods_of(finished)
    rows = rows_of(finished.folder / "evaluation" / "metrics.csv")
    for method, found in summary["methods"].items():
        scores = [float(row["dice"]) for row in rows if row["method"] == method]
        dice = found["metrics"]["dice"]
        assert dice["mean"] == pytest.approx(np.mean(scores))
        assert dice["low"] <= dice["mean"] <= dice["high"]
    tested = {(test["first"], test["second"]) for test in summary["tests"]}
    assert tested == {*(("vote", axis) for axis in AXES), ("vote_pretrained", "vote_scratch")}


def test_every_test_case_has_a_map_of_disagreement(finished: Place) -> None:
    written = [path.name for path in (finished.folder / "evaluation" / "uncertainty").iterdir()]
    assert len(written) == len(finished.test_cases())
    assert all(
        any(name.startswith(f"sub-{case}_") for name in written) for case in finished.test_cases()
    )


def test_scores_are_those_of_the_written_masks_against_the_truth(finished: Place) -> None:
    for row in rows_of(finished.folder / "evaluation" / "metrics.csv"):
        if row["method"] not in {*AXES, "vote"}:
            continue
        name = f"sub-{row['case']}_space-orig_label-L_desc-{row['method']}_mask.nii.gz"
        mask = voxels_of(finished.folder / "evaluation" / "masks" / name) > 0
        truth = voxels_of(image_of(finished.cases, row["case"], "OT")) > 0
        overlap = 2 * np.sum(mask & truth) / (mask.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(overlap)


def test_the_vote_is_two_of_the_three_axes(finished: Place) -> None:
    folder = finished.folder / "evaluation" / "masks"
    for case in finished.test_cases():
        masks = {
            method: voxels_of(folder / f"sub-{case}_space-orig_label-L_desc-{method}_mask.nii.gz")
            for method in (*AXES, "vote")
        }
        assert np.array_equal(masks["vote"], sum(masks[axis] for axis in AXES) >= 2)


def test_the_score_of_the_search_is_that_of_the_whole_volumes(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Slices, padded and counted one by one, score as evaluation does on the case's own grid."""
    place = finished.copy(tmp_path, "prepared", "search", "ensemble")
    outcome = launch(strokeseg.evaluate.main, *place.options, "--on", "validation")
    assert outcome.code == 0, outcome.err
    rows = rows_of(place.folder / "evaluation-validation" / "metrics.csv")
    assert not (place.folder / "evaluation").exists()
    for axis in AXES:
        evaluated = [float(row["dice"]) for row in rows if row["method"] == axis]
        best = max(
            float(row["dice"]) for row in place.leaderboard(axis) if row["state"] == "COMPLETE"
        )
        # Threads and batches may round a probability at the threshold to the other side.
        assert np.mean(evaluated) == pytest.approx(best, abs=2e-3)


def test_the_report_shows_boards_and_scores(finished: Place) -> None:
    page = (finished.folder / "report" / "report.md").read_text()
    assert all(word in page for word in (*AXES, "vote_pretrained", "resnet18", "splits"))


def test_the_report_says_what_was_searched_and_not_what_the_file_says(finished: Place) -> None:
    study = json.loads((finished.folder / "search" / "axial" / "study.json").read_text())
    assert (study["sampler"], study["trials"], study["epochs"]) == ("tpe", TRIALS, EPOCHS)
    page = (finished.folder / "report" / "report.md").read_text()
    assert "Trials were proposed by tpe (seed 0) and scored by mean 3D Dice over the" in page


def test_a_fresh_report_warns_of_what_it_must_and_of_no_more(finished: Place) -> None:
    assert cautions_of(finished.folder / "report") == [SIMULATED, few_patients(2)]


@pytest.fixture
def reportable(finished: Place, tmp_path: Path) -> Place:
    """A copy, to spoil what a report is made of."""
    parts = ("prepared", "search", "ensemble", "evaluation")
    return finished.copy(tmp_path / "runs", *parts)


def test_a_report_tells_of_a_search_that_came_after_the_ensemble(
    reportable: Place, launch: Callable[..., Any]
) -> None:
    folder = reportable.folder / "search" / "coronal"
    rows = reportable.leaderboard("coronal")
    for row in rows:
        row["learning_rate"] = "0.0077"
    _write_leaderboard(reportable, "coronal", rows)
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**study, "sampler": "gp"}))
    outcome = launch(strokeseg.report.main, *reportable.options)
    assert outcome.code == 0, outcome.err
    page = (reportable.folder / "report" / "report.md").read_text()
    assert "Searched again since the ensemble was promoted: coronal." in page
    assert "Trials of axial, sagittal were proposed by tpe" in page
    assert "Trials of coronal were proposed by gp" in page


def test_a_member_that_is_a_further_run_was_not_searched_again(
    reportable: Place, launch: Callable[..., Any]
) -> None:
    ensemble = json.loads((reportable.folder / "ensemble" / "ensemble.json").read_text())
    for axis in AXES:
        (member,) = ensemble["members"][axis]
        rows = reportable.leaderboard(axis)
        (further,) = (row for row in rows if member == f"{axis}-000{row['trial']}.safetensors")
        (own,) = (row for row in rows if row is not further)
        further["confirms"], own["runs"] = own["trial"], "1"
        _write_leaderboard(reportable, axis, rows)
    outcome = launch(strokeseg.report.main, *reportable.options)
    assert outcome.code == 0, outcome.err
    assert cautions_of(reportable.folder / "report") == [SIMULATED, few_patients(2)]


def _write_leaderboard(place: Place, axis: str, rows: list[dict[str, str]]) -> None:
    path = place.folder / "search" / axis / "leaderboard.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_scores_of_other_data_are_not_reported(
    reportable: Place, launch: Callable[..., Any]
) -> None:
    summary = reportable.folder / "evaluation" / "summary.json"
    values = json.loads(summary.read_text())
    summary.write_text(json.dumps({**values, "preparation_hash": "0" * 64}))
    outcome = launch(strokeseg.report.main, *reportable.options)
    assert outcome.code == 2
    assert "of other data than are prepared now" in outcome.err


def test_running_again_does_nothing_new(finished: Place, launch: Callable[..., Any]) -> None:
    kept = [finished.folder / "bundle.zip", finished.folder / "evaluation" / "metrics.csv"]
    kept += [finished.folder / "search" / axis / "leaderboard.csv" for axis in AXES]
    before = {path: path.read_bytes() for path in kept}
    trials = {axis: trials_of(finished.journal(axis), axis) for axis in AXES}
    scored = (finished.folder / "evaluation" / "summary.json").stat().st_mtime_ns
    outcome = launch(strokeseg.run.main, *finished.options, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "nothing to do" in outcome.out.lower()
    assert {path: path.read_bytes() for path in kept} == before
    assert {axis: trials_of(finished.journal(axis), axis) for axis in AXES} == trials
    assert (finished.folder / "evaluation" / "summary.json").stat().st_mtime_ns == scored


def test_predict_with_the_bundle_gives_the_masks_of_evaluate(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    outcome = launch(
        strokeseg.predict.main,
        *("--bundle", finished.folder / "bundle.zip", "--input", finished.cases),
        *("--output", tmp_path),
        *("--device", "cpu"),
    )
    assert outcome.code == 0, outcome.err
    written = {path.name: path for path in tmp_path.rglob("*_mask.nii.gz")}
    cases = [path.name for path in finished.cases.iterdir() if path.is_dir()]
    assert len(written) == len(cases) == 6
    for case in cases:
        (mask,) = (nibabel.load(path) for name, path in written.items() if f"sub-{case}_" in name)
        scan = nibabel.load(image_of(finished.cases, case, "MR_T1"))
        assert mask.shape == scan.shape
        assert np.array_equal(mask.affine, scan.affine)
    for case in finished.test_cases():
        (name,) = (name for name in written if f"sub-{case}_" in name)
        voted = finished.folder / "evaluation" / "masks" / name.replace("strokeseg", "vote")
        assert np.array_equal(voxels_of(written[name]), voxels_of(voted))


def test_predict_with_named_files_gives_the_same_mask(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    (case, *_) = finished.test_cases()
    tags = {"T1": "MR_T1", "T2": "MR_T2", "DWI": "MR_DWI", "FLAIR": "MR_Flair"}
    images = [
        part
        for sequence, tag in reversed(tags.items())
        for part in ("--image", f"{sequence}={image_of(finished.cases, case, tag)}")
    ]
    outcome = launch(
        strokeseg.predict.main,
        *("--bundle", finished.folder / "bundle.zip", "--output", tmp_path, "--case", "anna"),
        *("--device", "cpu"),
        *images,
    )
    assert outcome.code == 0, outcome.err
    (path,) = tmp_path.rglob("*_mask.nii.gz")
    assert "anna" in path.name
    name = f"sub-{case}_space-orig_label-L_desc-vote_mask.nii.gz"
    assert np.array_equal(
        voxels_of(path), voxels_of(finished.folder / "evaluation" / "masks" / name)
    )


def test_one_unreadable_case_is_listed_and_the_others_go_on(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    for case in ("1", "2"):
        shutil.copytree(finished.cases / f"{CASE}{case}", tmp_path / "cases" / case)
    image_of(tmp_path / "cases", "1", "MR_T2").write_bytes(b"")
    outcome = launch(
        strokeseg.predict.main,
        *("--bundle", finished.folder / "bundle.zip", "--input", tmp_path / "cases"),
        *("--output", tmp_path / "masks", "--device", "cpu"),
    )
    assert outcome.code == 1
    assert "failed: case 1" in outcome.err and "is empty (0 bytes)" in outcome.err
    (mask,) = (tmp_path / "masks").rglob("*_mask.nii.gz")
    assert mask.name.startswith("sub-2_")


def test_prepare_says_which_file_has_changed(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared")
    cases = Path(shutil.copytree(finished.cases, tmp_path / "cases"))
    image = image_of(cases, f"{CASE}3", "MR_DWI")
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    before = (place.folder / "prepared" / "preparation.json").read_bytes()
    outcome = launch(strokeseg.prepare.main, *place.options, "--data", cases)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "3/DWI has other content" in line and "--overwrite" in line
    assert (place.folder / "prepared" / "preparation.json").read_bytes() == before
    # Put back, though written again, it is the same data.
    content[-1] ^= 1
    image.write_bytes(content)
    outcome = launch(strokeseg.prepare.main, *place.options, "--data", cases)
    assert outcome.code == 0 and "Nothing to do" in outcome.out


def test_prepare_says_which_setting_has_changed(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path / "runs", "prepared")
    config = write_experiment(tmp_path, data=finished.cases, splits={"folds": 4})
    outcome = launch(strokeseg.prepare.main, "--experiment", config, "--storage", place.storage)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "splits.folds was 2, now 4" in line


def test_edited_splits_are_refused(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared", "ensemble")
    path = place.folder / "prepared" / "splits.json"
    splits = json.loads(path.read_text())
    splits["folds"][0].append(splits["test"].pop())
    path.write_text(json.dumps(splits))
    outcome = launch(strokeseg.evaluate.main, *place.options, "--device", "cpu")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "splits.json: was changed after it was written" in line
    assert not (place.folder / "evaluation").exists()


def test_promote_refuses_members_of_other_data(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared", "search")
    path = place.folder / "prepared" / "preparation.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "fingerprint": "0" * 64}))
    outcome = launch(strokeseg.promote.main, *place.options)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "trained on other data" in line
    assert not (place.folder / "ensemble").exists()


def test_promote_names_an_axis_that_was_not_searched(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared", "search")
    shutil.rmtree(place.folder / "search" / "coronal")
    outcome = launch(strokeseg.promote.main, *place.options)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "--axis coronal" in line


def test_resume_insists_on_a_search_to_go_on_with(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared")
    outcome = launch(strokeseg.search.main, *place.options, "--axis", "axial", "--resume")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "there is no search to resume" in line
    assert not (place.folder / "search").exists()


def test_more_trials_add_exactly_the_difference(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared", "search/axial")
    before = trials_of(place.journal("axial"), "axial")
    outcome = launch(
        strokeseg.search.main, *place.options, "--axis", "axial", "--trials", TRIALS + 1
    )
    assert outcome.code == 0, outcome.err
    after = trials_of(place.journal("axial"), "axial")
    assert after[:TRIALS] == before
    assert [trial.number for trial in after] == [0, 1, 2]
    assert all(trial.state.is_finished() for trial in after)
    assert len(place.leaderboard("axial")) == TRIALS + 1


def test_fewer_trials_than_are_done_change_nothing(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared", "search/axial")
    before = trials_of(place.journal("axial"), "axial")
    outcome = launch(strokeseg.search.main, *place.options, "--axis", "axial", "--trials", 1)
    assert outcome.code == 0, outcome.err
    assert trials_of(place.journal("axial"), "axial") == before


def test_a_trial_that_explodes_fails_alone_with_its_reason(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared")
    space = tmp_path / "space.yaml"
    space.write_text(
        "first: [{learning_rate: 0.003}, {learning_rate: 1.0e+30}]\n"
        "parameters:\n  encoder: {value: resnet18}\n  encoder_depth: {value: 3}\n"
        "  learning_rate: {choices: [0.003, 1.0e+30, 0.002]}\n"
    )
    outcome = launch(
        strokeseg.search.main,
        *(*place.options, "--axis", "axial", "--space", space, "--trials", 3),
    )
    assert outcome.code == 0, outcome.err
    rows = {row["trial"]: row for row in place.leaderboard("axial")}
    assert [rows[number]["state"] for number in ("0", "1", "2")] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "numbers are no longer finite" in rows["1"]["reason"]
    assert rows["0"]["reason"] == "" and rows["0"]["origin"] == "default"


def test_k_fold_scores_every_patient_and_promotes_every_network(
    finished: Place, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    place = finished.copy(tmp_path, "prepared")
    outcome = launch(
        strokeseg.search.main,
        *(*place.options, "--axis", *AXES, "--k-fold", "--trials", 1, "--epochs", 2),
    )
    assert outcome.code == 0, outcome.err
    for axis in AXES:
        # The space's second first point is still waiting.
        trial, _ = trials_of(place.journal(axis), axis)
        # 4 of the 6 patients are in the two folds, each scored once.
        assert sorted(trial.intermediate_values) == list(range(4))
        assert trial.value == pytest.approx(np.mean(list(trial.intermediate_values.values())))
        (row,) = place.leaderboard(axis)
        assert (row["epochs_run"], row["best_epoch"]) == ("4", "")
        assert float(row["dice"]) == pytest.approx(trial.value, abs=1e-6)
        spread = np.std(list(trial.intermediate_values.values()))
        assert float(row["spread"]) == pytest.approx(spread, abs=1e-6)
    outcome = launch(strokeseg.promote.main, *place.options)
    assert outcome.code == 0, outcome.err
    ensemble = json.loads((place.folder / "ensemble" / "ensemble.json").read_text())
    for axis in AXES:
        assert ensemble["members"][axis] == [
            f"{axis}-0000-fold0.safetensors",
            f"{axis}-0000-fold1.safetensors",
        ]
    records = [
        read_member_record(place.folder / "ensemble" / "members" / name)
        for name in ensemble["members"]["axial"]
    ]
    assert [record.fold for record in records] == [0, 1]
