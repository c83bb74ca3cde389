"""All cases of one subset of the split, scored.

What was found of a case is *kept* in a file of its own as soon as it is there, with a *key* of
all that it depends on. An evaluation that was interrupted goes on from there, and one that is
asked for again only does what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from typing_extensions import TypedDict

from strokeseg.compute.tasks import run_tasks
from strokeseg.errors import CaseError, UserError
from strokeseg.evaluation.scoring import CaseResult, Job, score_case, uncertainty_name
from strokeseg.imaging.cases import Case, mask_name
from strokeseg.process.progress import Show
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.preparation import changed_files, prepared_files
from strokeseg.records.record import parse_values
from strokeseg.records.scores import KeptRow
from strokeseg.records.summary import VOTE, ScoreRow
from strokeseg.storage.files import read_json, values_sha256, write_json


@dataclass(frozen=True, kw_only=True)
class SubsetResult:
    """What was found of the cases.

    Attributes:
        results: By case, in the order of the cases.
        failed: By case that could not be scored, why.
        kept: How many results were there before.
    """

    results: Mapping[str, CaseResult]
    failed: Mapping[str, str]
    kept: int


class _Kept(TypedDict):
    """What is kept of a case."""

    key: str
    rows: list[KeptRow]
    mean_disagreement: float | None
    auroc: float | None


def score_subset(
    experiment: Experiment, job: Job, cases: Sequence[Case], folder: Path, show: Show
) -> SubsetResult:
    """Score the cases that have not been scored yet, each by a Ray task.

    Args:
        job: What is the same for all of them.
        cases: All cases of the subset.
        folder: Where results are kept, a file a case; those of other cases are removed.
        show: Called with the progress.

    Raises:
        UserError: When something is wrong that is not with one case alone.
    """
    failed = {}
    for case in cases:
        if changed := changed_files(experiment, case):
            names = ", ".join(changed)
            failed[case.name] = f"{names}: not as it was when the split was drawn; restore it"
    keys = _keys(experiment, job, cases)
    results: dict[str, CaseResult] = {}
    fresh: dict[str, tuple[Job, Case]] = {}
    for case in cases:
        if case.name in failed:
            continue
        path = _kept_path(folder, case.name)
        kept = _read_kept(path, keys[case.name]) if path.exists() else None
        if kept is not None and _has_its_files(job, kept, case.name):
            results[case.name] = kept
        else:
            # Its masks are about to be replaced.
            path.unlink(missing_ok=True)
            fresh[case.name] = (job, case)
    before = len(results)
    show(before + len(failed), len(cases), "")
    on_gpu = job.device != "cpu"
    for name, found in run_tasks(score_case, fresh, cpus=job.threads, on_gpu=on_gpu):
        if isinstance(found, CaseError):
            failed[name] = str(found)
        elif isinstance(found, UserError):
            raise found
        else:
            write_json(_kept_path(folder, name), {"key": keys[name], **asdict(found)})
            results[name] = found
        show(len(results) + len(failed), len(cases), f"case {name}")
    _sweep(folder, job, results)
    ordered = {case.name: results[case.name] for case in cases if case.name in results}
    return SubsetResult(results=ordered, failed=failed, kept=before)


def hashes_of(experiment: Experiment, cases: Sequence[Case]) -> dict[str, dict[str, str]]:
    """By case, the hash of each of its files as they were prepared."""
    known = prepared_files(experiment)
    return {
        case.name: {
            name: known[f"{case.name}/{name}"]["sha256"]
            for name in (*case.images, "mask")
            if f"{case.name}/{name}" in known
        }
        for case in cases
    }


def row_of(values: KeptRow) -> ScoreRow:
    """A score row of the plain values that were kept of it."""
    return ScoreRow(**values)


def _keys(experiment: Experiment, job: Job, cases: Sequence[Case]) -> dict[str, str]:
    shared = {
        "ensemble": job.ensemble_sha256,
        "policy": job.policy,
        "lesion_labels": job.config.data.lesion_labels,
        "code_version": code_version(),
    }
    return {
        name: values_sha256({**shared, "files": files})
        for name, files in hashes_of(experiment, cases).items()
    }


def _kept_path(folder: Path, case: str) -> Path:
    return folder / f"{case}.json"


def _read_kept(path: Path, key: str) -> CaseResult | None:
    content = read_json(path)
    # What another version has kept may look otherwise.
    if isinstance(content, dict) and content.get("key") != key:
        return None
    values: _Kept = parse_values(_Kept, content, str(path), "remove it to score again")
    rows = tuple(row_of(row) for row in values["rows"])
    # The file's name is the case's.
    if {row.case for row in rows} != {path.stem} or VOTE not in {row.method for row in rows}:
        raise UserError(f"{path}: must hold the scores of its case; remove it to score again")
    return CaseResult(
        rows=rows, mean_disagreement=values["mean_disagreement"], auroc=values["auroc"]
    )


def _written(job: Job, result: CaseResult, case: str) -> list[Path]:
    methods = [row.method for row in result.rows if row.kind == "axis" or row.method == VOTE]
    masks = [job.masks_folder / mask_name(case, method) for method in methods]
    return [*masks, job.uncertainty_folder / uncertainty_name(case)]


def _has_its_files(job: Job, result: CaseResult, case: str) -> bool:
    return all(path.exists() for path in _written(job, result, case))


def _sweep(folder: Path, job: Job, results: Mapping[str, CaseResult]) -> None:
    """Remove what earlier evaluations left of cases and axes that are not in this one."""
    current = {_kept_path(folder, case) for case in results}
    for case, result in results.items():
        current.update(_written(job, result, case))
    for place in (folder, job.masks_folder, job.uncertainty_folder):
        for path in place.glob("*"):
            if path not in current:
                path.unlink()
