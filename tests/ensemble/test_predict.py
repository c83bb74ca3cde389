"""The command that segments new cases, with a bundle of small networks that know nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import strokeseg.predict
from strokeseg.imaging.derivatives import files_of
from strokeseg.imaging.layouts.siss import find_siss_cases
from strokeseg.phantoms.dataset import SPACINGS_MM, write_phantoms
from strokeseg.storage.files import read_csv

CHECKOUT = Path(__file__).parents[2]
SEQUENCES = ("T1", "T2", "DWI", "FLAIR")
SUFFIXES = {"T1": "anat/{}_T1w", "T2": "anat/{}_T2w", "DWI": "dwi/{}_dwi", "FLAIR": "anat/{}_FLAIR"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, write_untrained_bundle: Any) -> Path:
    return write_untrained_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def two_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases so coarse that networks are quick."""
    folder = tmp_path_factory.mktemp("two") / "cases"
    write_phantoms(folder, cases=2, spacing_mm=SPACINGS_MM[-1], seed=0)
    return folder


@pytest.fixture(scope="module")
def segmented(
    bundle: Path, two_cases: Path, tmp_path_factory: pytest.TempPathFactory, launch: Any
) -> Path:
    """Both cases, segmented with torch; copy it before changing anything."""
    output = tmp_path_factory.mktemp("segmented") / "out"
    outcome = predict(launch, bundle, output, "--input", two_cases)
    assert outcome.code == 0, outcome.err
    return output


def predict(launch: Any, bundle: Path, output: Path, *options: object) -> Any:
    return launch(
        strokeseg.predict.main,
        *("--bundle", bundle, "--output", output, "--device", "cpu"),
        *options,
    )


def masks_of(output: Path) -> dict[str, Any]:
    """Voxels of all masks, by the subject."""
    return {
        path.name.partition("_")[0]: np.asarray(nibabel.load(path).dataobj)
        for path in output.rglob("*_mask.nii.gz")
    }


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys() and first
    for name, mask in first.items():
        np.testing.assert_array_equal(mask, second[name])


def test_a_batch_becomes_a_data_set_of_derivatives(segmented: Path) -> None:
    described = json.loads((segmented / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    rows = read_csv(segmented / "lesions.csv")
    assert [row["case"] for row in rows] == ["1", "2"]
    for row in rows:
        files = files_of(segmented, row["case"])
        assert all(path.is_file() for path in files.all())
        assert segmented / row["mask"] == files.mask
        sidecar = json.loads(files.sidecar.read_text())
        assert float(row["lesion_ml"]) == pytest.approx(sidecar["LesionVolumeMl"], abs=0.001)
        assert sidecar["Bundle"] == "bundle.zip" and "torch" in sidecar["Versions"]


def test_the_same_command_goes_on_where_it_was_stopped(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any
) -> None:
    output = tmp_path / "out"
    shutil.copytree(segmented, output)
    first, second = (files_of(output, case) for case in ("1", "2"))
    second.sidecar.unlink()
    kept = first.mask.stat().st_mtime_ns
    outcome = predict(launch, bundle, output, "--input", two_cases)
    assert outcome.code == 0, outcome.err
    done, new = outcome.out.splitlines()
    assert done.startswith("1: ") and done.endswith("(done before)")
    assert new.startswith("2: ") and not new.endswith("(done before)")
    assert first.mask.stat().st_mtime_ns == kept and second.sidecar.is_file()
    assert_same(masks_of(output), masks_of(segmented))
    outcome = predict(launch, bundle, output, "--input", two_cases, "--overwrite")
    assert outcome.code == 0 and "done before" not in outcome.out
    assert first.mask.stat().st_mtime_ns > kept


def test_another_patients_files_under_the_same_name_are_refused(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any
) -> None:
    output = tmp_path / "out"
    shutil.copytree(segmented, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    named = ("--case", "1", *named_files(two_cases / "2"))
    outcome = predict(launch, bundle, output, *named)
    assert outcome.code == 2 and outcome.out == ""
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("failed: case 1: "))
    assert all(word in line for word in ("other files", "--case", "--output", "--overwrite"))
    assert {path: path.read_bytes() for path in before} == before
    outcome = predict(launch, bundle, output, *named, "--overwrite")
    assert outcome.code == 0, outcome.err
    masks = masks_of(output)
    np.testing.assert_array_equal(masks["sub-1"], masks["sub-2"])


def named_files(case: Path) -> list[str]:
    """A case in SISS's layout as options of predict."""
    (found,) = find_siss_cases(case, SEQUENCES, masks=False)
    return [part for name, path in found.images.items() for part in ("--image", f"{name}={path}")]


def test_a_case_that_joins_a_folder_leaves_the_rows_of_the_others(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any
) -> None:
    output = tmp_path / "out"
    shutil.copytree(segmented, output)
    named = ("--case", "10", *named_files(two_cases / "1"))
    outcome = predict(launch, bundle, output, *named)
    assert outcome.code == 0, outcome.err
    # The case itself is all that the command speaks of.
    assert [line.partition(":")[0] for line in outcome.out.splitlines()] == ["10"]
    rows = read_csv(output / "lesions.csv")
    assert [row["case"] for row in rows] == ["1", "2", "10"]
    assert rows[0]["lesion_ml"] == rows[2]["lesion_ml"]
    shutil.rmtree(output / "sub-2")
    outcome = predict(launch, bundle, output, *named)
    assert outcome.code == 0, outcome.err
    assert [row["case"] for row in read_csv(output / "lesions.csv")] == ["1", "10"]


def test_a_kept_case_says_what_made_it_where_that_is_not_the_same_today(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any
) -> None:
    output = tmp_path / "out"
    shutil.copytree(segmented, output)
    sidecar = files_of(output, "1").sidecar
    there = json.loads(sidecar.read_text())
    there["Versions"]["strokeseg"] = "0.0.1"
    sidecar.write_text(json.dumps(there))
    outcome = predict(launch, bundle, output, "--input", two_cases)
    older, same = outcome.out.splitlines()
    assert older.endswith(" (done before, with torch, strokeseg 0.0.1)")
    assert same.endswith(" (done before)")
    outcome = predict(launch, bundle, output, "--input", two_cases, "--runtime", "onnx")
    assert all("(done before, with torch, " in line for line in outcome.out.splitlines())


def test_masks_of_another_bundle_are_kept_unless_asked_to_overwrite(
    two_cases: Path, segmented: Path, tmp_path: Path, launch: Any, write_untrained_bundle: Any
) -> None:
    output = tmp_path / "out"
    shutil.copytree(segmented, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    other = write_untrained_bundle(tmp_path, seed=1)
    outcome = predict(launch, other, output, "--input", two_cases)
    assert outcome.code == 2 and outcome.out == ""
    (line,) = outcome.error_lines
    assert "another bundle" in line and "--overwrite" in line
    assert {path: path.read_bytes() for path in before} == before
    outcome = predict(launch, other, output, "--input", two_cases / "1", "--overwrite")
    assert outcome.code == 0, outcome.err


def test_onnxruntime_gives_the_masks_of_torch(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any
) -> None:
    outcome = predict(launch, bundle, tmp_path, "--input", two_cases, "--runtime", "onnx")
    assert outcome.code == 0, outcome.err
    theirs, ours = masks_of(tmp_path), masks_of(segmented)
    assert theirs.keys() == ours.keys()
    # Random networks put many voxels right at the threshold, where rounding decides.
    differing = [np.mean(theirs[name] != mask) for name, mask in ours.items()]
    assert max(differing) < 1e-3
    sidecar = json.loads(files_of(tmp_path, "1").sidecar.read_text())
    assert "onnxruntime" in sidecar["Versions"] and "torch" not in sidecar["Versions"]


@pytest.mark.parametrize("layout", ["bids", "isles22", "nnunet", "manifest"])
def test_every_layout_of_the_same_scans_gives_the_same_mask(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path, launch: Any, layout: str
) -> None:
    (case,) = find_siss_cases(two_cases / "1", SEQUENCES, masks=False)
    source = lay_out(tmp_path / "cases", layout, case.images)
    given = ("--layout", layout) if layout == "bids" else ()
    outcome = predict(launch, bundle, tmp_path / "out", "--input", source, *given)
    assert outcome.code == 0, outcome.err
    (mask,) = masks_of(tmp_path / "out").values()
    np.testing.assert_array_equal(mask, masks_of(segmented)["sub-1"])


def lay_out(folder: Path, layout: str, images: Any) -> Path:
    """Copy a case's images into a layout, and return what to give as input."""
    names = {
        "bids": {sequence: f"sub-1/{SUFFIXES[sequence].format('sub-1')}" for sequence in images},
        "isles22": {
            sequence: f"rawdata/sub-1/ses-1/sub-1_ses-1_{sequence.lower()}" for sequence in images
        },
        "nnunet": {
            sequence: f"imagesTs/one_{number:04d}" for number, sequence in enumerate(images)
        },
        "manifest": {sequence: sequence for sequence in images},
    }[layout]
    for sequence, path in images.items():
        target = folder / f"{names[sequence]}.nii"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if layout == "nnunet":
        channels = {str(number): sequence for number, sequence in enumerate(images)}
        (folder / "dataset.json").write_text(json.dumps({"channel_names": channels}))
    if layout == "manifest":
        (folder / "cases.csv").write_text(
            f"case,{','.join(images)}\none,{','.join(f'{name}.nii' for name in images)}\n"
        )
        return folder / "cases.csv"
    return folder


def test_one_case_that_fails_is_listed_and_the_others_go_on(
    bundle: Path, two_cases: Path, tmp_path: Path, launch: Any
) -> None:
    shutil.copytree(two_cases, tmp_path / "cases")
    next((tmp_path / "cases/1").glob("*MR_T2*/*.nii")).unlink()
    outcome = predict(launch, bundle, tmp_path / "out", "--input", tmp_path / "cases")
    assert outcome.code == 1
    assert "failed: case 1: sequence T2 is missing in" in outcome.err
    assert list(masks_of(tmp_path / "out")) == ["sub-2"]


def test_what_would_mix_up_cases_or_data_sets_is_refused(
    bundle: Path, two_cases: Path, tmp_path: Path, launch: Any
) -> None:
    (tmp_path / "cases.csv").write_text(
        "case,T1,T2,DWI,FLAIR\n1,a,b,c,d\nsub-1,e,f,g,h\n", encoding="utf-8"
    )
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dataset_description.json").write_text('{"DatasetType": "raw"}')
    for output, options, fault in (
        ("out", ("--input", tmp_path / "cases.csv"), "several cases would be named sub-1"),
        ("raw", ("--input", two_cases), "no derivative; give --output"),
        ("out", ("--input", two_cases, "--reference", "T9"), "--reference T9: must be one of"),
    ):
        outcome = predict(launch, bundle, tmp_path / output, *options)
        assert outcome.code == 2 and outcome.out == ""
        (line,) = outcome.error_lines
        assert fault in line
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / "raw").iterdir())) == 1


def test_predicting_with_onnxruntime_needs_none_of_the_training_packages(
    bundle: Path, two_cases: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "ray", "pyarrow", "pandas", "optuna", "timm",
            "segmentation_models_pytorch", "safetensors", "onnx"}}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from strokeseg.predict import main
sys.exit(main(["--bundle", {str(bundle)!r}, "--input", {str(two_cases / "1")!r},
    "--output", {str(tmp_path / "out")!r}, "--runtime", "onnx"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert list(masks_of(tmp_path / "out")) == ["sub-1"]


@pytest.mark.slow
def test_an_environment_of_the_extra_predict_alone_gives_the_masks_of_torch(
    bundle: Path, two_cases: Path, segmented: Path, tmp_path: Path
) -> None:
    # A copy, since building leaves files beside the sources.
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copyfile(CHECKOUT / name, sources / name)
    shutil.copytree(CHECKOUT / "strokeseg", sources / "strokeseg")
    programs = make_environment(tmp_path / "environment", sources, "predict")
    command = [programs / "strokeseg", "predict", "--bundle", bundle, "--input", two_cases]
    ended = subprocess.run(
        [*command, "--output", tmp_path / "out"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    installed = {path.name for path in (tmp_path / "environment").rglob("site-packages/*")}
    assert "onnxruntime" in installed and not {"torch", "ray", "pyarrow"} & installed
    theirs, ours = masks_of(tmp_path / "out"), masks_of(segmented)
    assert theirs.keys() == ours.keys()
    assert max(np.mean(theirs[name] != mask) for name, mask in ours.items()) < 1e-3


def make_environment(folder: Path, sources: Path, extra: str) -> Path:
    """Make an environment of the package with one extra; return the folder of its programs."""
    what = ["--constraint", str(sources / "constraints.txt"), f"{sources}[{extra}]"]
    python = folder / "bin" / "python"
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *what],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *what],
        ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, text=True)
    return python.parent
