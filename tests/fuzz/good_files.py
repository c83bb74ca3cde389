"""The good files that bad ones are made of: tiny cases, and all that commands make of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import segmentation_models_pytorch as smp
import torch
from entrances import BENCHES, ENTRANCES, predict, run_on, stay_in_this_process
from safetensors.torch import save_file

import strokeseg.evaluate
import strokeseg.export
import strokeseg.prepare
import strokeseg.promote
import strokeseg.report
from strokeseg.imaging.slices import AXES
from strokeseg.records.config import NetworkConfig
from strokeseg.records.experiment import Experiment, open_experiment, trial_weights
from strokeseg.records.leaderboard import write_leaderboard
from strokeseg.records.member import MemberRecord
from strokeseg.records.preparation import read_preparation
from strokeseg.training.checkpoint import save_member
from strokeseg.training.network import build_network
from strokeseg.tuning.options import prepared_slices
from strokeseg.tuning.space_file import load_space
from strokeseg.tuning.study import open_study

SEQUENCES = ("T1", "DWI")
ENCODER, DEPTH = "tu-test_resnet", 3
_SIDES = (12, 12, 10)
_CASES = 4
_EXPERIMENT = f"""\
data: {{path: cases.csv, sequences: [{", ".join(SEQUENCES)}]}}
splits: {{folds: 2, test_share: 0.25}}
search: {{space: space.yaml, trials: 2, epochs: 1, confirm_trials: 0}}
ensemble: {{choose: vote}}
"""
_SPACE = f"""\
parameters:
  encoder: {{value: {ENCODER}}}
  encoder_depth: {{value: {DEPTH}}}
  learning_rate: {{low: 0.0001, high: 0.01, log: true}}
  batch_size: {{choices: [2, 4]}}
first:
  - {{learning_rate: 0.001, batch_size: 2}}
"""
_PRETRAINED_SPACE = f"""\
parameters:
  encoder: {{value: {ENCODER}}}
  encoder_depth: {{value: {DEPTH}}}
  pretrained: {{value: true}}
"""


def warm_up(seeds: Path) -> None:
    """Make the good files where they are not there, and let every entrance take them."""
    torch.set_num_threads(1)
    stay_in_this_process()
    # Records name the files in it: the folder cannot be renamed when it is done.
    done = seeds.with_name(f"{seeds.name}-done")
    if not done.exists():
        make_seeds(seeds)
        done.touch()
    place = seeds.with_name("warming-up")
    for name, entrance in ENTRANCES.items():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(seeds / BENCHES[name], place / BENCHES[name])
        code = entrance(place / BENCHES[name])
        if code != 0:
            raise RuntimeError(f"{name} does not take good files: {code}")


def make_seeds(folder: Path) -> None:
    """Write all that is good: cases, a bundle, and experiments prepared, searched and scored."""
    for name in ("searched", "untried"):
        workspace = folder / name
        write_cases(workspace)
        (workspace / "experiment.yaml").write_text(_EXPERIMENT)
        (workspace / "space.yaml").write_text(_SPACE)
        run_on(strokeseg.prepare.main, workspace)
    workspace = folder / "searched"
    experiment = open_experiment(str(workspace), str(workspace / "runs"))
    for axis in AXES:
        _search(experiment, axis)
    run_on(strokeseg.promote.main, workspace, "--device", "cpu")
    run_on(strokeseg.evaluate.main, workspace, "--device", "cpu")
    run_on(strokeseg.report.main, workspace)
    run_on(strokeseg.export.main, workspace)
    predicting = folder / "predicting"
    write_cases(predicting)
    shutil.copy(experiment.bundle_zip, predicting / "bundle.zip")
    _write_layouts(predicting)
    predict(predicting)
    (predicting / "out").rename(predicting / "done")
    _write_weights(folder / "untried" / "weights")
    (folder / "untried" / "pretrained.yaml").write_text(_PRETRAINED_SPACE)


def _search(experiment: Experiment, axis: str) -> None:
    """Write what a search leaves, scores and weights by chance."""
    preparation = read_preparation(experiment)
    budget = experiment.config.search
    data = prepared_slices(experiment, preparation, budget)
    generator = np.random.default_rng(AXES.index(axis))
    with open_study(
        experiment,
        axis,
        data,
        budget=budget,
        space=load_space(experiment.space_path(axis)),
        find_encoders=dict,
    ) as study:
        while (proposal := study.ledger.ask()) is not None:
            dice = float(generator.random())
            spent = {"seconds": 1.0, "device_hours": 0.1}
            study.ledger.report(proposal.number, {"epoch": 1, "dice": dice, "spread": 0.1, **spent})
            save_member(
                trial_weights(experiment.trials_folder(axis), proposal.number),
                build_network(
                    NetworkConfig(encoder=ENCODER, encoder_depth=DEPTH), channels=len(SEQUENCES)
                ),
                MemberRecord(
                    axis=axis,
                    trial=proposal.number,
                    config=proposal.config,
                    channels=SEQUENCES,
                    dice=dice,
                    epoch=1,
                    spacing_mm=preparation.spacing_mm,
                    preparation_hash=preparation.fingerprint,
                    code_version="1",
                ),
            )
        write_leaderboard(experiment.leaderboard_csv(axis), study.ledger.rows())


def _write_layouts(workspace: Path) -> None:
    """Write the first case again as nnU-Net and BIDS have it."""
    raw, bids = workspace / "nnunet", workspace / "bids" / "sub-1" / "anat"
    for folder in (raw / "imagesTr", raw / "labelsTr", bids):
        folder.mkdir(parents=True)
    for number, (sequence, suffix) in enumerate(zip(SEQUENCES, ("T1w", "dwi"), strict=True)):
        scan = workspace / "scans" / f"1_{sequence}.nii.gz"
        shutil.copy(scan, raw / "imagesTr" / f"1_{number:04d}.nii.gz")
        shutil.copy(scan, bids / f"sub-1_{suffix}.nii.gz")
    names = {str(number): sequence for number, sequence in enumerate(SEQUENCES)}
    description = {"channel_names": names, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description))


def _write_weights(folder: Path) -> None:
    """Write an encoder's weights in all forms that are read."""
    folder.mkdir()
    encoder = smp.encoders.get_encoder(ENCODER, in_channels=3, depth=5, weights=None)
    save_file(encoder.state_dict(), folder / f"{ENCODER}.safetensors")
    forms = folder.with_name("forms")
    forms.mkdir()
    torch.save(encoder.state_dict(), forms / "zipped.pth")
    torch.save(encoder.state_dict(), forms / "legacy.pth", _use_new_zipfile_serialization=False)


def write_cases(workspace: Path) -> None:
    """Write tiny cases, and the manifest that names them."""
    scans = workspace / "scans"
    scans.mkdir(parents=True)
    rows = [",".join(("case", *SEQUENCES, "mask"))]
    for case in range(1, _CASES + 1):
        generator = np.random.default_rng(case)
        names = []
        for kind in (*SEQUENCES, "mask"):
            voxels = np.zeros(_SIDES, dtype=np.uint8 if kind == "mask" else np.float32)
            inside = voxels[2:-2, 2:-2, 2:-2]
            if kind == "mask":
                inside[:3, 2:5, 1 : 2 + case] = 1
            else:
                inside[...] = generator.normal(100, 20, inside.shape)
            name = f"scans/{case}_{kind}.nii.gz"
            # Compressed or not, the content tells.
            nibabel.save(
                nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), workspace / name
            )
            names.append(name)
        rows.append(",".join((str(case), *names)))
        if case == 1:
            (workspace / "one.csv").write_text("\n".join(rows) + "\n")
    (workspace / "cases.csv").write_text("\n".join(rows) + "\n")
