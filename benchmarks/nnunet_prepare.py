"""Preparation: our `prepare` against nnU-Net's `nnUNetv2_plan_and_preprocess`.

The same siss-like cases, whole processes, in turn. Before the clock starts the cases are copied
for ours in the layout of ISLES 2015 SISS and for nnU-Net in its raw layout; both are compressed
NIfTI. nnU-Net extracts its fingerprint, plans, and preprocesses the 2d configuration alone, with
two processes each (-npfp 2 -np 2) and without its own check of the data set, which favours it.
Ours starts Ray, checks the cases, looks for one patient under two names, splits, and slices along
all three axes.

python -m benchmarks.nnunet_prepare
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.part import Options, run_alone, tell, timed
from benchmarks.peers import missing, peer_python
from benchmarks.results import Comparison, Figure, PartResult
from benchmarks.setting import cores
from benchmarks.siss_small import case_folders, our_command, place_experiment
from strokeseg.records.experiment import Experiment

CASES, QUICK_CASES, PROCESSES = 20, 8, 2
SEQUENCES = ("T1", "T2", "DWI", "Flair")
TITLE = "How fast is preparation, against nnU-Net's?"
_DATASET, _NUMBER = "Dataset001_SissLike", "1"


def run(options: Options) -> PartResult:
    """Prepare the same cases with both, in turn."""
    if reason := missing(options.peers):
        return PartResult(title=TITLE, method="", left_out=(reason,))
    count = QUICK_CASES if options.quick else CASES
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="preparation-") as place:
        folder = Path(place)
        experiment = place_experiment(folder, options.data, cases=count)
        _write_raw(folder / "raw", case_folders(options.data)[:count])
        for _ in range(options.times(2)):
            theirs.append(_run_nnunet(folder, count, options))
            tell(f"nnunet_prepare: nnU-Net took {theirs[-1]:.0f} s; ours")
            ours.append(_run_ours(experiment, options))
            tell(f"nnunet_prepare: ours took {ours[-1]:.0f} s")
    return _result(count, ours, theirs)


def _write_raw(raw: Path, cases: list[Path]) -> None:
    images, labels = raw / _DATASET / "imagesTr", raw / _DATASET / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    for case in cases:
        name = f"case_{int(case.name):03d}"
        for channel, sequence in enumerate(SEQUENCES):
            volume = _volume(case, f"MR_{sequence}")
            shutil.copyfile(volume, images / f"{name}_{channel:04d}.nii.gz")
        shutil.copyfile(_volume(case, "OT"), labels / f"{name}.nii.gz")
    description = {
        "channel_names": dict(enumerate(SEQUENCES)),
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / _DATASET / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def _volume(case: Path, kind: str) -> Path:
    (found,) = case.glob(f"*.{kind}.*/*.nii.gz")
    return found


def _run_nnunet(folder: Path, cases: int, options: Options) -> float:
    places = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "done", "nnUNet_results": "results"}
    done = folder / places["nnUNet_preprocessed"]
    shutil.rmtree(done, ignore_errors=True)
    command = [str(peer_python(options.peers).with_name("nnUNetv2_plan_and_preprocess"))]
    command += ["-d", _NUMBER, "-c", "2d", "-np", str(PROCESSES), "-npfp", str(PROCESSES)]
    environment = {name: str(folder / place) for name, place in places.items()}
    seconds = timed(command, options, environment).seconds
    prepared = len(list((done / _DATASET / "nnUNetPlans_2d").glob("*.pkl")))
    if prepared != cases:
        raise RuntimeError(f"nnU-Net must prepare {cases} cases, got {prepared}")
    return seconds


def _run_ours(experiment: Experiment, options: Options) -> float:
    shutil.rmtree(experiment.prepared_folder, ignore_errors=True)
    seconds = timed(our_command("prepare", experiment), options).seconds
    if not experiment.preparation_json.exists():
        raise RuntimeError(f"{experiment.prepared_folder}: was not prepared")
    return seconds


def _result(count: int, ours: list[float], theirs: list[float]) -> PartResult:
    rates = [tuple(60 * count / seconds / cores() for seconds in side) for side in (ours, theirs)]
    return PartResult(
        title=TITLE,
        method=(
            f"{count} siss-like cases of 2 mm, whole processes. nnU-Net: fingerprint, plan and "
            f"the 2d configuration with {PROCESSES} processes, without its check of the data. "
            "Ours: check, leak audit, split, and slices along three axes. Ratios of cases a "
            "minute and core: more is better."
        ),
        comparisons=(
            Comparison(
                what="preparation, cases a minute and core",
                other="nnU-Net's plan_and_preprocess (2d)",
                unit="cases/min/core",
                ours=rates[0],
                theirs=rates[1],
                less_is_better=False,
            ),
        ),
        figures=(
            Figure(name="ours, whole process", unit="s", values=tuple(ours)),
            Figure(name="nnU-Net, whole process", unit="s", values=tuple(theirs)),
        ),
    )


if __name__ == "__main__":
    run_alone(run, __doc__)
