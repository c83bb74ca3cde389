"""The commands that untrusted files go into, run in one process on tiny data.

What Ray would do in workers, which nobody watches, is done here in the same process: cases are
checked, sliced and scored one after the other. All else is what the commands do. A search is over
when it has read all it needs and asks for Ray.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

import strokeseg.evaluate
import strokeseg.evaluation.rivals
import strokeseg.evaluation.side
import strokeseg.experiment
import strokeseg.export
import strokeseg.predict
import strokeseg.preparation.steps
import strokeseg.prepare
import strokeseg.promote
import strokeseg.report
import strokeseg.search
from strokeseg.cli import run_command
from strokeseg.experiment import Experiment, trial_weights
from strokeseg.imaging.slice_file import SliceFile
from strokeseg.imaging.slices import AXES
from strokeseg.leaderboard import write_leaderboard
from strokeseg.learning.bundle import open_bundle
from strokeseg.learning.checkpoint import save_member
from strokeseg.learning.member_record import MemberRecord
from strokeseg.learning.networks import build_network
from strokeseg.preparation.record import read_preparation
from strokeseg.search_options import prepared_slices
from strokeseg.tuning.study import open_study

SEQUENCES = ("T1", "DWI")
ENCODER, DEPTH = "tu-test_resnet", 3
_SIDES = (12, 12, 10)
_CASES = 4
_EXPERIMENT = f"""\
data: {{path: cases.csv, sequences: [{", ".join(SEQUENCES)}]}}
splits: {{folds: 2, test_share: 0.25}}
search: {{space: space.yaml, trials: 2, epochs: 1, confirm_trials: 0, transfer_trials: 0}}
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


class RayAskedForError(Exception):
    """All files have been read, and the work would begin."""


@contextmanager
def _no_ray(*_: object) -> Iterator[None]:
    raise RayAskedForError
    yield


def _one_by_one(work: Any, cases: Sequence[Any], show: Any, **_: object) -> list[Any]:
    return [work(case) for case in cases]


def _each(work: Any, arguments: Mapping[str, tuple[Any, ...]], **_: object) -> Iterator[Any]:
    for name, given in arguments.items():
        yield name, work(*given)


def _stay_in_this_process() -> None:
    for module in (strokeseg.preparation.steps, strokeseg.evaluate, strokeseg.promote):
        module.ray_session = lambda *_: nullcontext()
    strokeseg.preparation.steps.spread = _one_by_one
    strokeseg.evaluation.side.run_tasks = strokeseg.evaluation.rivals.run_tasks = _each
    strokeseg.evaluate.cpus_a_task = lambda _: 1
    strokeseg.search.ray_session = _no_ray
    # It asks git, which takes longer than most files.
    for module in (
        *(strokeseg.predict, strokeseg.promote, strokeseg.search, strokeseg.evaluate),
        *(strokeseg.preparation.steps, strokeseg.evaluation.side, strokeseg.evaluation.rivals),
    ):
        module.code_version = lambda: "1"


def warm_up(seeds: Path) -> None:
    """Make the good files where they are not there, and let every entrance take them."""
    torch.set_num_threads(1)
    _stay_in_this_process()
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
        bench = folder / name
        write_cases(bench)
        (bench / "experiment.yaml").write_text(_EXPERIMENT)
        (bench / "space.yaml").write_text(_SPACE)
        _run(strokeseg.prepare.main, bench)
    bench = folder / "searched"
    experiment = strokeseg.experiment.open_experiment(str(bench), str(bench / "runs"))
    for axis in AXES:
        _search(experiment, axis)
    _run(strokeseg.promote.main, bench, "--device", "cpu")
    _run(strokeseg.evaluate.main, bench, "--device", "cpu")
    _run(strokeseg.report.main, bench)
    _run(strokeseg.export.main, bench)
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
        space_path=experiment.space_path(axis),
        weights_dir=None,
    ) as study:
        while (proposal := study.ledger.ask()) is not None:
            dice = float(generator.random())
            spent = {"seconds": 1.0, "device_hours": 0.1}
            study.ledger.report(proposal.number, {"epoch": 1, "dice": dice, "spread": 0.1, **spent})
            save_member(
                trial_weights(experiment.trials_folder(axis), proposal.number),
                build_network(encoder=ENCODER, encoder_depth=DEPTH, channels=len(SEQUENCES)),
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


def _write_layouts(bench: Path) -> None:
    """Write the first case again as nnU-Net and BIDS have it."""
    raw, bids = bench / "nnunet", bench / "bids" / "sub-1" / "anat"
    for folder in (raw / "imagesTr", raw / "labelsTr", bids):
        folder.mkdir(parents=True)
    for number, (sequence, suffix) in enumerate(zip(SEQUENCES, ("T1w", "dwi"), strict=True)):
        scan = bench / "scans" / f"1_{sequence}.nii.gz"
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


def write_cases(bench: Path) -> None:
    """Write tiny cases, and the manifest that names them."""
    scans = bench / "scans"
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
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), bench / name)
            names.append(name)
        rows.append(",".join((str(case), *names)))
        if case == 1:
            (bench / "one.csv").write_text("\n".join(rows) + "\n")
    (bench / "cases.csv").write_text("\n".join(rows) + "\n")


def _options(bench: Path) -> tuple[object, ...]:
    return ("--experiment", bench / "experiment.yaml", "--storage", bench / "runs")


def _run(main: Callable[[Sequence[str]], int], bench: Path, *more: object) -> int:
    return main([str(option) for option in (*_options(bench), *more)])


def prepare(bench: Path) -> int:
    """Prepare the cases anew."""
    options = ("--experiment", bench / "experiment.yaml", "--storage", bench / "fresh")
    return _main(strokeseg.prepare.main, *options)


def predict(bench: Path) -> int:
    """Segment the first case with the good bundle, which is opened once only."""
    return _predict(bench, "--input", bench / "one.csv")


def predict_nnunet(bench: Path) -> int:
    """Segment the cases of a data set of nnU-Net."""
    return _predict(bench, "--input", bench / "nnunet")


def predict_again(bench: Path) -> int:
    """Come back to what was segmented before."""
    return _predict(bench, "--input", bench / "one.csv", output=bench / "done")


def open_torch_bundle(bench: Path) -> int:
    """Segment a case with a bundle that is opened anew, by PyTorch."""
    return _open(bench, "torch")


def open_onnx_bundle(bench: Path) -> int:
    """Segment a case with a bundle that is opened anew, by onnxruntime."""
    return _open(bench, "onnx")


def search(bench: Path) -> int:
    """Look at a study that is done, or go on with one that is not."""
    return _search_until_ray(bench, "--axis", "axial")


def search_anew(bench: Path) -> int:
    """Begin a study."""
    return _search_until_ray(bench, "--axis", "axial")


def search_pretrained(bench: Path) -> int:
    """Begin a study that wants pretrained weights."""
    given = ("--space", bench / "pretrained.yaml", "--weights-dir", bench / "weights")
    return _search_until_ray(bench, "--axis", "axial", *given)


def promote(bench: Path) -> int:
    """Promote the best trials."""
    return _run(strokeseg.promote.main, bench, "--device", "cpu")


def evaluate(bench: Path) -> int:
    """Come back to what was scored before."""
    return _run(strokeseg.evaluate.main, bench, "--device", "cpu")


def report(bench: Path) -> int:
    """Write the report."""
    return _run(strokeseg.report.main, bench)


def read_slices(bench: Path) -> int:
    """Read every prepared slice, as workers do."""
    return run_command(lambda: _read_slices(bench))


def _read_slices(bench: Path) -> int:
    for path in (bench / "runs").rglob("*.parquet"):
        file = SliceFile(path)
        str(file.columns(["case", "lesion_voxels", "brain_voxels"])["case"][0])
        for row in range(len(file)):
            image, mask = file.read(row)
            assert (image.shape, mask.shape) == (file.shape, file.shape[1:])
    return 0


def _main(main: Callable[[Sequence[str]], int], *options: object) -> int:
    return main([str(option) for option in options])


def _predict(bench: Path, *source: object, output: Path | None = None) -> int:
    bundle = ("--bundle", bench / "bundle.zip")
    place = ("--output", bench / "out" if output is None else output, "--device", "cpu")
    strokeseg.predict.open_bundle = _open_once
    try:
        return _main(strokeseg.predict.main, *bundle, *place, *source)
    finally:
        strokeseg.predict.open_bundle = open_bundle


def _open(bench: Path, runtime: str) -> int:
    return _main(
        strokeseg.predict.main,
        *("--bundle", bench / "bundle.zip", "--output", bench / "out", "--runtime", runtime),
        *("--input", bench / "one.csv", "--device", "cpu"),
    )


@functools.cache
def _open_once(*given: Any) -> Any:
    return open_bundle(*given)


def _search_until_ray(bench: Path, *options: object) -> int:
    try:
        return _run(strokeseg.search.main, bench, *options)
    except RayAskedForError:
        return 0


ENTRANCES: dict[str, Callable[[Path], int]] = {
    one.__name__: one
    for one in (
        *(prepare, predict, predict_nnunet, predict_again, open_torch_bundle, open_onnx_bundle),
        *(search, search_anew, search_pretrained, promote, evaluate, report, read_slices),
    )
}
# The good files that each of them needs.
BENCHES = {
    **dict.fromkeys(ENTRANCES, "searched"),
    **dict.fromkeys(("search_anew", "search_pretrained"), "untried"),
    **dict.fromkeys(
        ("predict", "predict_nnunet", "predict_again", "open_torch_bundle", "open_onnx_bundle"),
        "predicting",
    ),
}
