"""The README's story, command by command, as a newcomer would type it."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import fmean

import nibabel
import pytest
from finished_report import SIMULATED, cautions_of, few_patients

import strokeseg.prepare

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()


def commands(language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("source ")]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_step_by_step_commands_work_in_their_order_and_the_demo_votes_well(tmp_path):
    steps = commands("sh")
    assert [step.split()[1] for step in steps[:3]] == ["phantom", "prepare", "search"]
    output = {}
    for step in steps:
        begun = time.monotonic()
        done = run(step, tmp_path)
        print(f"{step}: {time.monotonic() - begun:.0f} s")
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        output[step.split()[1]] = done.stdout
    demo = tmp_path / "runs" / "demo"
    assert all(method in output["evaluate"] for method in ("axial", "coronal", "sagittal", "vote"))
    test = json.loads((demo / "prepared" / "splits.json").read_text())["test"]
    with (demo / "evaluation" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "vote"]
    assert sorted(row["case"] for row in rows) == sorted(test)
    assert fmean(float(row["dice"]) for row in rows) >= 0.6
    # Its best trials ran a second time, and either run may be a member.
    assert cautions_of(demo / "report") == [SIMULATED, few_patients(len(test))]
    cases = sum(path.is_dir() for path in (demo / "cases").iterdir())
    assert len(list((tmp_path / "masks").rglob("*_mask.nii.gz"))) == cases


def test_the_two_commands_of_the_set_up_are_targets_that_run_the_demo_and_the_tests():
    set_up = README.split("```")[1].split()
    assert set_up == ["make", "demo", "make", "test"]
    planned = run("make -n --always-make demo test VENV=planned", CHECKOUT).stdout
    assert "planned/bin/strokeseg run" in planned
    assert "planned/bin/pytest" in planned


def test_every_experiment_and_option_that_the_readme_names_is_there(launch):
    for name in re.findall(r"--experiment ([a-z0-9-]+)", README):
        assert (CHECKOUT / "experiments" / name / "experiment.yaml").is_file()
    helps = "".join(
        launch(import_module(f"strokeseg.{command}").main, "--help").out
        for command in (
            *("prepare", "search", "measure_leakage", "evaluate", "export", "predict", "run"),
        )
    )
    for option in set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", README)) - {
        "--help",
        "--logdir",
        "--universal",
    }:
        of_others = {"--python-version", "--extra", "--no-header", "--no-annotate"}
        of_others |= {"--head", "--num-cpus"}
        assert option in helps or option in of_others, option


def test_the_experiment_that_the_readme_shows_prepares_its_cases(
    tmp_path, phantom_cases, launch, local_ray
):
    (config,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (manifest,) = re.findall(r"```csv\n(.*?)```", README, flags=re.DOTALL)
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    assert "[1, 1, 1]" in config
    (folder / "experiment.yaml").write_text(config.replace("[1, 1, 1]", "[6, 6, 6]"))
    header, *shown = list(csv.reader(manifest.splitlines()))
    tags = {"DWI": "MR_DWI", "ADC": "MR_T2", "FLAIR": "MR_Flair", "mask": "OT"}
    rows = []
    # As many patients as its folds and test set need, named as it names them.
    folders = sorted(path for path in phantom_cases.iterdir() if path.is_dir())
    for number, case in enumerate(folders, start=1):
        row = [cell.replace("p01", f"p{number:02d}") for cell in shown[0]]
        for column, tag in tags.items():
            (source,) = case.glob(f"VSD.*.{tag}.*/*.nii*")
            target = folder / row[header.index(column)]
            target.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.load(source), target)
        rows.append(row)
    assert rows[1][:2] == shown[1][:2]
    (folder / "cases.csv").write_text("\n".join(map(",".join, [header, *rows])))
    options = ("--experiment", folder, "--storage", tmp_path / "runs")
    done = launch(strokeseg.prepare.main, *options)
    assert done.code == 0, done.err
    assert f"Prepared {len(rows)} cases" in done.out
    # Two names of one person, found too late, are no longer two patients.
    rows[1][header.index("patient")] = rows[0][header.index("patient")]
    (folder / "cases.csv").write_text("\n".join(map(",".join, [header, *rows])))
    done = launch(strokeseg.prepare.main, *options)
    assert done.code == 2
    assert "case p02a was of patient p02, now of p01" in done.err and "--overwrite" in done.err
