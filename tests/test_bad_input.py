"""Bad input through the real commands: exit code 2, one line that helps, nothing left behind."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import strokeseg.__main__
import strokeseg.evaluate
import strokeseg.export
import strokeseg.phantom
import strokeseg.predict
import strokeseg.prepare
import strokeseg.promote
import strokeseg.report
import strokeseg.run
import strokeseg.search
from strokeseg.imaging.slices import AXES

SEQUENCES = ("T1", "T2", "DWI", "FLAIR")
SPACE = "parameters:\n  encoder: {value: resnet18}\n  encoder_depth: {value: 3}\n"
# Where commands may write though they fail: Ray's output, which cases are invalid or alike.
ALLOWED = {"logs", "validation.csv", "similarity.csv"}

Launch = Callable[..., Any]


class Workspace:
    """An experiment in a folder of its own, on real files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "bad" / "experiment.yaml"
        self.space = self.config.parent / "space.yaml"
        self.storage = folder / "runs"
        self.cases = folder / "cases"
        self.config.parent.mkdir(parents=True)
        self.configure()
        self.space.write_text(SPACE)

    def configure(self, more: str = "", data: str = "path: ../cases") -> None:
        self.config.write_text(
            f"data: {{{data}}}\nsplits: {{folds: 2, test_share: 0}}\n"
            f"search: {{space: space.yaml, trials: 1, epochs: 1}}\n{more}"
        )

    @property
    def options(self) -> tuple[object, ...]:
        return ("--experiment", self.config, "--storage", self.storage)

    def left(self) -> list[str]:
        """Files in the storage, those aside that a failed command may leave."""
        files = (path for path in self.storage.rglob("*") if path.is_file())
        inside = (path.relative_to(self.storage).parts for path in files)
        return sorted("/".join(parts) for parts in inside if not ALLOWED & set(parts))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def volume_of(cases: Path, case: str, tag: str) -> Path:
    (path,) = (cases / case).glob(f"VSD.*.{tag}.*/*.nii*")
    return path


def truncate(cases: Path, case: str) -> None:
    """Compress DWI, as a download would be, and lose the second half."""
    path = volume_of(cases, case, "MR_DWI")
    content = gzip.compress(path.read_bytes())
    path.with_suffix(".nii.gz").write_bytes(content[: len(content) // 2])
    path.unlink()


def move_grid(cases: Path, case: str) -> None:
    """Shift T2 by 5 mm to the patient's right, as if it were not registered."""
    path = volume_of(cases, case, "MR_T2")
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 5
    voxels = np.asarray(image.dataobj)
    path.unlink()
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def relabel(cases: Path, case: str) -> None:
    """Turn one voxel of the mask into label 2."""
    path = volume_of(cases, case, "OT")
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[tuple(np.argwhere(voxels)[0])] = 2
    path.unlink()
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


DAMAGES: dict[str, tuple[str, Callable[[Path, str], object], tuple[str, ...]]] = {
    "a missing sequence": (
        "1",
        lambda cases, case: shutil.rmtree(volume_of(cases, case, "MR_Flair").parent),
        ("sequence FLAIR is missing in",),
    ),
    "a truncated .nii.gz": ("2", truncate, ("MR_DWI", "is truncated or damaged", "copy it again")),
    "two grids": (
        "3",
        move_grid,
        ("sequence T2 must be on the grid of T1", "origin", "preparation.reference"),
    ),
    "an empty mask file": (
        "4",
        lambda cases, case: volume_of(cases, case, "OT").write_bytes(b""),
        ("OT", "is empty (0 bytes)"),
    ),
    "a mask with label 2": (
        "5",
        relabel,
        ("a mask must hold 0 and 1 only, got 1, 2", "data.lesion_labels"),
    ),
}


@pytest.fixture(scope="module")
def damaged(
    tmp_path_factory: pytest.TempPathFactory, phantom_cases: Path, launch: Launch, local_ray: None
) -> tuple[Workspace, Any]:
    """Prepare six cases of which five are damaged, each in its own way."""
    workspace = Workspace(tmp_path_factory.mktemp("damaged"))
    shutil.copytree(phantom_cases, workspace.cases)
    for case, damage, _ in DAMAGES.values():
        damage(workspace.cases, case)
    return workspace, launch(strokeseg.prepare.main, *workspace.options)


def test_invalid_cases_stop_prepare_with_a_line_each_and_leave_nothing(
    damaged: tuple[Workspace, Any],
) -> None:
    workspace, outcome = damaged
    assert outcome.code == 2 and outcome.out == ""
    first, *lines = outcome.error_lines
    assert "5 of 6 cases are invalid" in first and "--skip-invalid" in first
    assert [line.split(":")[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "Traceback" not in outcome.err
    assert workspace.left() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_invalid_case_is_reported_with_name_file_and_remedy(
    damaged: tuple[Workspace, Any], damage: str
) -> None:
    workspace, outcome = damaged
    case, _, words = DAMAGES[damage]
    (line,) = (line for line in outcome.error_lines if line.startswith(f"{case}: "))
    assert all(word in line for word in words), line
    table = next(workspace.storage.rglob("validation.csv")).read_text()
    assert f"\n{case},{case},no," in table and "\n6,6,yes," in table


def test_skip_invalid_lists_what_it_leaves_out(
    phantom_cases: Path, workspace: Workspace, launch: Launch, local_ray: None
) -> None:
    shutil.copytree(phantom_cases, workspace.cases)
    relabel(workspace.cases, "2")
    outcome = launch(strokeseg.prepare.main, *workspace.options, "--skip-invalid")
    assert outcome.code == 0, outcome.err
    assert "Left out 1 invalid cases:\n2: " in outcome.out
    assert "Prepared 5 cases" in outcome.out
    prepared = workspace.storage / "bad" / "prepared"
    rows = (prepared / "cases.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "3", "4", "5", "6"]
    assert "\n2,2,no," in (prepared / "validation.csv").read_text()
    # Mended, the case is a change like any other.
    shutil.copy(volume_of(phantom_cases, "2", "OT"), volume_of(workspace.cases, "2", "OT"))
    again = launch(strokeseg.prepare.main, *workspace.options)
    assert again.code == 2
    (line,) = again.error_lines
    assert "2/mask has other content" in line


def test_a_single_invalid_case_is_named_though_skipping_would_leave_none(
    phantom_cases: Path, workspace: Workspace, launch: Launch, local_ray: None
) -> None:
    shutil.copytree(phantom_cases / "1", workspace.cases / "1")
    relabel(workspace.cases, "1")
    outcome = launch(strokeseg.prepare.main, *workspace.options, "--skip-invalid")
    assert outcome.code == 2
    assert any(line.startswith("1: ") and "got 1, 2" in line for line in outcome.error_lines)
    assert workspace.left() == []


def disguise(cases: Path, case: str, name: str) -> None:
    """Copy a case under another name: flipped, padded, and in other units and numbers."""
    for path in sorted((cases / case).glob("VSD.*/*.nii")):
        image = nibabel.load(path)
        voxels = np.pad(np.asarray(image.dataobj)[::-1], ((2, 0), (1, 3), (0, 2)))
        kind = path.parent.name
        if ".OT." not in kind:
            voxels = np.where(voxels, 0.5 * voxels + 10, 0).astype(np.float32)
        target = cases / name / kind / f"{kind}.nii.gz"
        target.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), target)


def test_a_scan_in_disguise_is_refused_until_it_is_one_patients_or_known_to_be_distinct(
    phantom_cases: Path, workspace: Workspace, launch: Launch, local_ray: None
) -> None:
    shutil.copytree(phantom_cases, workspace.cases)
    disguise(workspace.cases, "3", "17")
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.error_lines
    assert "cases 3 and 17 are nearly the same (similarity 1.00" in line
    assert 'splits.distinct_patients: [["3", "17"]]' in line
    assert workspace.left() == []
    prepared = workspace.storage / "bad" / "prepared"
    assert "\n3,3,17,17," in (prepared / "similarity.csv").read_text()

    workspace.config.write_text(
        workspace.config.read_text().replace(
            "test_share: 0", 'test_share: 0, distinct_patients: [["3", "17"]]'
        )
    )
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    assert outcome.code == 0, outcome.err
    assert "Leak audit: 7 cases compared, nearest pair " in outcome.out
    assert "\n3,3,17,17," not in (prepared / "similarity.csv").read_text()
    # Nothing that was written depends on who is distinct.
    workspace.configure()
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    assert outcome.out.startswith("Nothing to do")

    # The same cases by a manifest that knows whose they are.
    rows = ["case,patient," + ",".join(SEQUENCES) + ",mask"]
    tags = ("MR_T1", "MR_T2", "MR_DWI", "MR_Flair", "OT")
    for case in (path.name for path in workspace.cases.iterdir() if path.is_dir()):
        files = [str(volume_of(workspace.cases, case, tag)) for tag in tags]
        rows.append(",".join([case, "3" if case == "17" else case, *files]))
    (workspace.folder / "cases.csv").write_text("\n".join(rows) + "\n")
    workspace.configure(data="path: ../cases.csv, layout: manifest")
    outcome = launch(strokeseg.prepare.main, *workspace.options, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert "Leak audit: 7 cases compared, nearest pair " in outcome.out


def test_unknown_distinct_patients_are_named(
    phantom_cases: Path, workspace: Workspace, launch: Launch
) -> None:
    shutil.copytree(phantom_cases, workspace.cases)
    workspace.config.write_text(
        workspace.config.read_text().replace("test_share: 0", 'distinct_patients: [["3", "71"]]')
    )
    refused(
        launch(strokeseg.prepare.main, *workspace.options), "distinct_patients", "['71'] are none"
    )


def test_too_few_patients_for_the_folds_leave_nothing(
    phantom_cases: Path, workspace: Workspace, launch: Launch, local_ray: None
) -> None:
    shutil.copytree(phantom_cases / "1", workspace.cases / "1")
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "2 folds need as many patients, got 1" in line
    assert workspace.left() == []


def refused(outcome: Any, *words: str) -> None:
    """Check for exit code 2 and one line, which holds the words."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


def test_an_empty_folder_holds_no_case(workspace: Workspace, launch: Launch) -> None:
    workspace.cases.mkdir()
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    refused(outcome, str(workspace.cases), "holds no case in a layout", "VSD.Brain.XX.O.MR_T1")
    assert workspace.left() == []


def test_a_missing_folder_of_cases_is_named(workspace: Workspace, launch: Launch) -> None:
    outcome = launch(
        strokeseg.prepare.main, *workspace.options, "--data", workspace.folder / "nowhere"
    )
    refused(outcome, str(workspace.folder / "nowhere"), "no such folder")
    assert workspace.left() == []


@pytest.mark.parametrize("command", ["prepare", "search", "run", "evaluate"])
def test_an_unknown_key_in_yaml_is_named(
    workspace: Workspace, launch: Launch, command: str
) -> None:
    workspace.configure("epochs: 3\npreparation: {spacing: 1}\n")
    axis = ("--axis", "axial") if command == "search" else ()
    main = getattr(strokeseg, command).main
    outcome = launch(main, *workspace.options, *axis)
    refused(outcome, str(workspace.config), "unknown key epochs", "unknown key preparation.spacing")
    assert not workspace.storage.exists()


def test_a_misspelt_axis_error_names_the_known_ones(workspace: Workspace, launch: Launch) -> None:
    outcome = launch(strokeseg.search.main, *workspace.options, "--axis", "corronal")
    refused(outcome, "--axis", "corronal", *AXES)
    assert not workspace.storage.exists()


@pytest.mark.parametrize("command", ["prepare", "phantom", "search", "run"])
def test_storage_below_a_file_cannot_be_written(
    workspace: Workspace, launch: Launch, command: str
) -> None:
    taken = workspace.folder / "taken"
    taken.write_text("a file")
    axis = ("--axis", "axial") if command == "search" else ()
    outcome = launch(
        getattr(strokeseg, command).main,
        *("--experiment", workspace.config, "--storage", taken / "runs"),
        *axis,
    )
    refused(outcome, str(taken / "runs"), "cannot be written")
    assert taken.read_text() == "a file"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], ["no command 'serch'", "search", "prepare"]),
        (["search"], ["--axis"]),
        (["search", "--axis", "axial", "--trails", "3"], ["--trails"]),
        (["search", "--axis", "axial", "--trials", "many"], ["--trials", "many"]),
        (["prepare", "--experiment", "nothing"], ["--experiment nothing", "known are", "demo"]),
        (["prepare", "--storage", "ftp://host/x"], ["ftp://host/x", "cannot be used"]),
        (["predict"], ["--bundle", "--output"]),
        (["phantom", "--cases", "3"], ["cases", "--output"]),
        (["phantom", "--output", "x", "--cases", "0"], ["cases", "got 0"]),
        (["phantom", "--output", "x", "--spacing-mm", "20"], ["spacing", "20"]),
    ],
)
def test_a_wrong_command_line_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    launch: Launch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(launch(strokeseg.__main__.main, *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, phantom_cases: Path, launch: Launch, local_ray: None
) -> Workspace:
    """Prepare the cases as they are; copy the place before changing it."""
    workspace = Workspace(tmp_path_factory.mktemp("prepared"))
    shutil.copytree(phantom_cases, workspace.cases)
    outcome = launch(strokeseg.prepare.main, *workspace.options)
    assert outcome.code == 0, outcome.err
    return workspace


WRONG_SPACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown encoder": (
        SPACE.replace("resnet18", "resnet81"),
        ("resnet81", "did you mean resnet18"),
    ),
    "an unknown parameter": (
        SPACE + "  learning_rat: {value: 1}\n",
        ("unknown parameter learning_rat", "learning_rate"),
    ),
    "an unknown key": (
        SPACE + "  batch_size: {choice: [8]}\n",
        ("unknown key parameters.batch_size.choice",),
    ),
    "weights that cannot be had": (
        SPACE.replace("resnet18", "tu-mnasnet_050") + "  pretrained: {value: true}\n",
        ("tu-mnasnet_050", "run once with a network", "--weights-dir"),
    ),
}


@pytest.mark.parametrize("fault", WRONG_SPACES)
def test_a_wrong_space_is_an_error_before_the_first_trial(
    prepared: Workspace, tmp_path: Path, launch: Launch, fault: str
) -> None:
    space, words = WRONG_SPACES[fault]
    path = tmp_path / "space.yaml"
    path.write_text(space)
    before = prepared.left()
    outcome = launch(strokeseg.search.main, *prepared.options, "--axis", "axial", "--space", path)
    refused(outcome, *words)
    assert prepared.left() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trials", "0"), ("trials", "got 0")),
        (("--epochs", "-1"), ("epochs", "got -1")),
        (("--space", "nowhere.yaml"), ("nowhere.yaml", "cannot be read")),
        (("--resume",), ("there is no search to resume",)),
    ],
)
def test_a_wrong_option_of_search_is_an_error_before_the_first_trial(
    prepared: Workspace, launch: Launch, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = prepared.left()
    outcome = launch(strokeseg.search.main, *prepared.options, "--axis", "axial", *arguments)
    refused(outcome, *words)
    assert prepared.left() == before


def test_a_run_that_could_score_nobody_in_the_end_searches_nothing(
    prepared: Workspace, launch: Launch
) -> None:
    before = prepared.left()
    outcome = launch(strokeseg.run.main, *prepared.options)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "there is no test patient" in line and "--on validation" in line
    assert prepared.left() == before


@pytest.mark.parametrize("more", [("--trials", "0"), ()])
def test_nobody_waits_for_the_preparation_to_hear_of_a_typing_error(
    workspace: Workspace, launch: Launch, local_ray: None, more: tuple[str, ...]
) -> None:
    workspace.configure(data="phantom: {cases: 4, spacing_mm: 6.0}")
    workspace.space.write_text(SPACE if more else SPACE.replace("resnet18", "resnet81"))
    refused(launch(strokeseg.search.main, *workspace.options, "--axis", "axial", *more))
    assert workspace.left() == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("promote", ("nothing is prepared", "run strokeseg prepare --experiment bad first")),
        ("evaluate", ("nothing is prepared", "strokeseg prepare")),
        ("report", ("run strokeseg evaluate --experiment bad first",)),
        ("export", ("there is no ensemble; run strokeseg promote",)),
    ],
)
def test_a_step_too_early_names_the_step_before(
    workspace: Workspace, launch: Launch, command: str, words: tuple[str, ...]
) -> None:
    refused(launch(getattr(strokeseg, command).main, *workspace.options), *words)
    assert workspace.left() == []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, write_untrained_bundle: Any) -> Path:
    return write_untrained_bundle(tmp_path_factory.mktemp("bundle"))


def predict(launch: Launch, bundle: Path, output: Path, *source: object) -> Any:
    return launch(
        strokeseg.predict.main,
        *("--bundle", bundle, "--output", output, "--device", "cpu"),
        *source,
    )


@pytest.mark.parametrize("name", ["models/axial-0000.safetensors", "configs/ensemble.json"])
def test_a_bundle_with_a_changed_byte_is_refused(
    bundle: Path, phantom_cases: Path, tmp_path: Path, launch: Launch, name: str
) -> None:
    damaged = tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle) as whole, zipfile.ZipFile(damaged, "w") as copy:
        for entry in whole.infolist():
            content = bytearray(whole.read(entry))
            if entry.filename == name:
                content[-2] ^= 1
            copy.writestr(entry, bytes(content))
    outcome = predict(launch, damaged, tmp_path / "masks", "--input", phantom_cases)
    refused(outcome, str(damaged), name)
    assert not list(tmp_path.glob("masks/*"))


def test_a_bundle_with_a_changed_byte_in_its_archive_is_refused(
    bundle: Path, phantom_cases: Path, tmp_path: Path, launch: Launch
) -> None:
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "bundle.zip"
    damaged.write_bytes(content)
    outcome = predict(launch, damaged, tmp_path / "masks", "--input", phantom_cases)
    refused(outcome, str(damaged))
    assert not list(tmp_path.glob("masks/*"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ((), ("--input", "--image")),
        (("--input", "CASES", "--image", "T1=a.nii"), ("--input", "--image")),
        (("--image", "T1=a.nii"), ("--case NAME",)),
        (("--input", "CASES", "--case", "anna"), ("--case NAME", "--image")),
        (("--case", "anna", "--image", "T9=a.nii"), ("T9=a.nii", "T1, T2, DWI, FLAIR")),
        (("--case", "anna", "--image", "a.nii"), ("SEQUENCE=FILE",)),
        (("--input", "EMPTY"), ("holds no case in a layout",)),
        (("--input", "nowhere"), ("nowhere", "no such folder")),
    ],
)
def test_predict_says_what_input_it_wants(
    bundle: Path,
    phantom_cases: Path,
    tmp_path: Path,
    launch: Launch,
    source: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"CASES": phantom_cases, "EMPTY": tmp_path / "empty"}
    given = [places.get(part, part) for part in source]
    refused(predict(launch, bundle, tmp_path / "masks", *given), *words)
    assert not list(tmp_path.glob("masks/*"))


def test_predict_names_a_missing_bundle(
    phantom_cases: Path, tmp_path: Path, launch: Launch
) -> None:
    missing = tmp_path / "nowhere.zip"
    outcome = predict(launch, missing, tmp_path / "masks", "--input", phantom_cases)
    refused(outcome, str(missing))
    assert not list(tmp_path.glob("masks/*"))


def test_predict_without_all_sequences_names_those_that_are_missing(
    bundle: Path, phantom_cases: Path, tmp_path: Path, launch: Launch
) -> None:
    image = volume_of(phantom_cases, "1", "MR_T1")
    named = ("--case", "anna", "--image", f"T1={image}")
    outcome = predict(launch, bundle, tmp_path / "masks", *named)
    assert outcome.code == 2 and outcome.out == ""
    assert "sequence T2 is missing" in outcome.err and "sequence DWI is missing" in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("masks/*"))


def test_predict_refuses_an_output_that_cannot_be_written(
    bundle: Path, phantom_cases: Path, tmp_path: Path, launch: Launch
) -> None:
    (tmp_path / "taken").write_text("a file")
    outcome = predict(launch, bundle, tmp_path / "taken" / "masks", "--input", phantom_cases / "1")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert str(tmp_path / "taken") in line and "cannot be written" in line
