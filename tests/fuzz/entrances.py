"""The commands that untrusted files go into, run in one process on tiny data.

What Ray would do in workers, which nobody watches, is done here in the same process: cases are
checked, sliced and scored one after the other. All else is what the commands do. A search is over
when it has read all it needs and asks for Ray.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import strokeseg.ensemble.segmentation
import strokeseg.evaluate
import strokeseg.evaluation.baselines
import strokeseg.evaluation.ensemble
import strokeseg.evaluation.subset
import strokeseg.export
import strokeseg.predict
import strokeseg.preparation.steps
import strokeseg.prepare
import strokeseg.promote
import strokeseg.records.experiment
import strokeseg.report
import strokeseg.search
import strokeseg.selection.out_of_fold
import strokeseg.selection.promotion
import strokeseg.tuning.search
from strokeseg.cli import run_command
from strokeseg.ensemble.bundle import open_bundle
from strokeseg.imaging.slice_file import SliceFile


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


def stay_in_this_process() -> None:
    for module in (
        *(strokeseg.preparation.steps, strokeseg.evaluation.ensemble),
        strokeseg.selection.promotion,
    ):
        module.ray_session = lambda *_: nullcontext()
    strokeseg.preparation.steps.spread = _one_by_one
    strokeseg.evaluation.subset.run_tasks = strokeseg.evaluation.baselines.run_tasks = _each
    strokeseg.evaluation.ensemble.cpus_a_task = lambda _: 1
    strokeseg.tuning.search.ray_session = _no_ray
    # It asks git, which takes longer than most files.
    for module in (
        *(
            strokeseg.ensemble.segmentation,
            strokeseg.selection.promotion,
            strokeseg.selection.out_of_fold,
        ),
        *(strokeseg.tuning.search, strokeseg.evaluation.ensemble, strokeseg.preparation.steps),
        *(strokeseg.evaluation.subset, strokeseg.evaluation.baselines),
    ):
        module.code_version = lambda: "1"


def _options(workspace: Path) -> tuple[object, ...]:
    return ("--experiment", workspace / "experiment.yaml", "--storage", workspace / "runs")


def run_on(main: Callable[[Sequence[str]], int], workspace: Path, *more: object) -> int:
    return main([str(option) for option in (*_options(workspace), *more)])


def prepare(workspace: Path) -> int:
    """Prepare the cases again."""
    options = ("--experiment", workspace / "experiment.yaml", "--storage", workspace / "fresh")
    return _main(strokeseg.prepare.main, *options)


def predict(workspace: Path) -> int:
    """Segment the first case with the good bundle, which is opened once only."""
    return _predict(workspace, "--input", workspace / "one.csv")


def predict_nnunet(workspace: Path) -> int:
    """Segment the cases of a data set of nnU-Net."""
    return _predict(workspace, "--input", workspace / "nnunet")


def predict_again(workspace: Path) -> int:
    """Come back to what was segmented before."""
    return _predict(workspace, "--input", workspace / "one.csv", output=workspace / "done")


def open_torch_bundle(workspace: Path) -> int:
    """Segment a case with a bundle that is opened again, by PyTorch."""
    return _open(workspace, "torch")


def open_onnx_bundle(workspace: Path) -> int:
    """Segment a case with a bundle that is opened again, by onnxruntime."""
    return _open(workspace, "onnx")


def search(workspace: Path) -> int:
    """Look at a study that is done, or go on with one that is not."""
    return _search_until_ray(workspace, "--axis", "axial")


def search_from_scratch(workspace: Path) -> int:
    """Begin a study."""
    return _search_until_ray(workspace, "--axis", "axial")


def search_pretrained(workspace: Path) -> int:
    """Begin a study that wants pretrained weights."""
    given = ("--space", workspace / "pretrained.yaml", "--weights-dir", workspace / "weights")
    return _search_until_ray(workspace, "--axis", "axial", *given)


def promote(workspace: Path) -> int:
    """Promote the best trials."""
    return run_on(strokeseg.promote.main, workspace, "--device", "cpu")


def evaluate(workspace: Path) -> int:
    """Come back to what was scored before."""
    return run_on(strokeseg.evaluate.main, workspace, "--device", "cpu")


def report(workspace: Path) -> int:
    """Write the report."""
    return run_on(strokeseg.report.main, workspace)


def read_slices(workspace: Path) -> int:
    """Read every prepared slice, as workers do."""
    return run_command(lambda: _read_slices(workspace))


def _read_slices(workspace: Path) -> int:
    for path in (workspace / "runs").rglob("*.parquet"):
        file = SliceFile(path)
        str(file.columns(["case", "lesion_voxels", "brain_voxels"])["case"][0])
        for row in range(len(file)):
            image, mask = file.read(row)
            assert (image.shape, mask.shape) == (file.shape, file.shape[1:])
    return 0


def _main(main: Callable[[Sequence[str]], int], *options: object) -> int:
    return main([str(option) for option in options])


def _predict(workspace: Path, *source: object, output: Path | None = None) -> int:
    bundle = ("--bundle", workspace / "bundle.zip")
    place = ("--output", workspace / "out" if output is None else output, "--device", "cpu")
    strokeseg.ensemble.segmentation.open_bundle = _open_once
    try:
        return _main(strokeseg.predict.main, *bundle, *place, *source)
    finally:
        strokeseg.ensemble.segmentation.open_bundle = open_bundle


def _open(workspace: Path, runtime: str) -> int:
    return _main(
        strokeseg.predict.main,
        *(
            "--bundle",
            workspace / "bundle.zip",
            "--output",
            workspace / "out",
            "--runtime",
            runtime,
        ),
        *("--input", workspace / "one.csv", "--device", "cpu"),
    )


@functools.cache
def _open_once(*given: Any) -> Any:
    return open_bundle(*given)


def _search_until_ray(workspace: Path, *options: object) -> int:
    try:
        return run_on(strokeseg.search.main, workspace, *options)
    except RayAskedForError:
        return 0


ENTRANCES: dict[str, Callable[[Path], int]] = {
    one.__name__: one
    for one in (
        *(prepare, predict, predict_nnunet, predict_again, open_torch_bundle, open_onnx_bundle),
        *(search, search_from_scratch, search_pretrained, promote, evaluate, report, read_slices),
    )
}
# The good files that each of them needs.
BENCHES = {
    **dict.fromkeys(ENTRANCES, "searched"),
    **dict.fromkeys(("search_from_scratch", "search_pretrained"), "untried"),
    **dict.fromkeys(
        ("predict", "predict_nnunet", "predict_again", "open_torch_bundle", "open_onnx_bundle"),
        "predicting",
    ),
}
