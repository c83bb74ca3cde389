"""Masks that came from elsewhere, scored as the ensemble's are.

A *baseline* is a folder of masks under a name: another program's, or an earlier ensemble's. A
case's mask is `<case>.nii` or `sub-<case>_…_mask.nii`, compressed or not; every label above 0
is lesion. A baseline is scored on the cases that the ensemble was scored on, and its scores are
kept with the ensemble's, which they do not depend on: a later evaluation shows them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from typing_extensions import TypedDict

from strokeseg.compute.tasks import run_tasks
from strokeseg.errors import CaseError, UserError
from strokeseg.evaluation.scoring import Job, scores_of
from strokeseg.evaluation.subset import hashes_of, row_of
from strokeseg.imaging.cases import Case, bids_name, is_case_name
from strokeseg.imaging.metric_names import Policy
from strokeseg.imaging.scan import LesionLabels, read_lesion
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.record import parse_values
from strokeseg.records.scores import KeptRow
from strokeseg.records.summary import ScoreRow
from strokeseg.storage.files import read_json, values_sha256, write_json

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """What was found of all baselines.

    Attributes:
        rows: A row a baseline and case.
        failed: By case and baseline, why there is none.
        outdated: Baselines that were scored before, but on other cases, by another policy or by
            other code.
    """

    rows: tuple[ScoreRow, ...]
    failed: Mapping[str, str]
    outdated: tuple[str, ...]


class _Kept(TypedDict):
    """What is kept of a baseline."""

    key: str
    rows: list[KeptRow]
    failed: dict[str, str]


def check_baselines(baselines: Mapping[str, Path], taken: Sequence[str]) -> None:
    """Refuse names that are no file names or name other methods, and folders that are not there.

    Raises:
        UserError: With the first fault.
    """
    for name, folder in baselines.items():
        if not is_case_name(name):
            raise UserError(
                f"--name {name}: must be letters, digits, blanks and . _ + - only; choose another"
            )
        if name in taken:
            raise UserError(f"--name {name}: is a method of the ensemble's own; choose another")
        if not folder.is_dir():
            raise UserError(f"--predictions {folder}: no such folder; check the path")


def score_baselines(
    experiment: Experiment,
    job: Job,
    baselines: Mapping[str, Path],
    cases: Sequence[Case],
    kept_folder: Path,
) -> BaselineResult:
    """Score the baselines given and take in those that were scored before.

    Args:
        job: Its policy and labels count.
        baselines: Folders by name; those of a name that is known already replace it.
        cases: The cases that the ensemble was scored on.
        kept_folder: Where scores are kept, a file a baseline.

    Raises:
        UserError: When no mask of a folder could be scored; nothing is kept of it.
    """
    truths = {name: files.get("mask") for name, files in hashes_of(experiment, cases).items()}
    key = values_sha256(
        {
            "truths": truths,
            "policy": job.policy,
            "lesion_labels": job.config.data.lesion_labels,
            "code_version": code_version(),
        }
    )
    for name, folder in baselines.items():
        rows, failed = _score_baseline(job, name, folder, cases)
        if not rows:
            raise UserError(
                f"--predictions {folder}: none of its masks could be scored: "
                f"{'; '.join(f'{case}: {why}' for case, why in failed.items())}"
            )
        kept = {"key": key, "rows": [asdict(row) for row in rows], "failed": failed}
        write_json(kept_folder / f"{name}.json", kept)
    found: list[ScoreRow] = []
    all_failed: dict[str, str] = {}
    outdated = []
    for path in sorted(kept_folder.glob("*.json")):
        values: _Kept = parse_values(
            _Kept, read_json(path), str(path), "remove it, and score the baseline again"
        )
        if values["key"] == key:
            found += [row_of(row) for row in values["rows"]]
            all_failed.update(values["failed"])
        else:
            outdated.append(path.stem)
    return BaselineResult(rows=tuple(found), failed=all_failed, outdated=tuple(outdated))


def find_masks(folder: Path, cases: Sequence[str]) -> dict[str, list[Path]]:
    """Return the masks of each case in a folder, in order of their names.

    A file `sub-a_b_mask.nii.gz` is of the case `a_b` when there is one, else of `a`.
    """
    found: dict[str, list[Path]] = {case: [] for case in cases}
    longest_first = sorted(cases, key=len, reverse=True)
    # `predict` puts a folder a subject around its masks, as BIDS wants it.
    for path in sorted(folder.rglob("*.nii*")):
        stem = _stem(path.name)
        if stem in found:
            found[stem].append(path)
        elif stem is not None and stem.endswith("_mask"):
            starts = {case: (f"sub-{case}_", f"{bids_name(case)}_") for case in longest_first}
            owners = (case for case in longest_first if stem.startswith(starts[case]))
            if owner := next(owners, None):
                found[owner].append(path)
    return found


def score_mask(
    case: Case, path: Path, method: str, lesion_labels: LesionLabels, policy: Policy
) -> ScoreRow | CaseError:
    """Score one mask of a baseline; for a Ray task.

    Returns:
        Its row, or what is wrong with the mask.
    """
    try:
        if case.mask is None:
            raise CaseError(f"case {case.name} has no lesion mask to be scored against")
        truth = read_lesion(case.mask, lesion_labels)
        given = read_lesion(path, "any")
        if not given.grid.matches(truth.grid):
            raise CaseError(
                f"{path}: must be on the grid of {case.mask}, which is {truth.grid}; "
                f"got {given.grid}; bring it back to the case's own grid"
            )
    except CaseError as error:
        return error
    values = scores_of(truth.voxels, given.voxels, truth.grid.spacing_mm, policy)
    return ScoreRow(
        case=case.name, patient=case.patient, method=method, kind="baseline", values=values
    )


def _score_baseline(
    job: Job, name: str, folder: Path, cases: Sequence[Case]
) -> tuple[list[ScoreRow], dict[str, str]]:
    masks = find_masks(folder, [case.name for case in cases])
    if not any(masks.values()):
        raise UserError(
            f"--predictions {folder}: holds no mask of any case that was scored; expected files "
            f"such as {cases[0].name}.nii.gz or sub-{cases[0].name}_mask.nii.gz"
        )
    labels = job.config.data.lesion_labels
    failed = {}
    for case, paths in masks.items():
        if len(paths) != 1:
            names = ", ".join(str(path.relative_to(folder)) for path in paths) or "none"
            failed[case] = f"{folder}: must hold one mask of the case, got {names}"
    arguments = {
        case.name: (case, masks[case.name][0], name, labels, job.policy)
        for case in cases
        if case.name not in failed
    }
    rows: dict[str, ScoreRow] = {}
    for case, found in run_tasks(score_mask, arguments):
        if isinstance(found, CaseError):
            failed[case] = str(found)
        else:
            rows[case] = found
    order = [case.name for case in cases]
    named = {f"{case} ({name})": failed[case] for case in order if case in failed}
    return [rows[case] for case in order if case in rows], named


def _stem(name: str) -> str | None:
    for ending in _ENDINGS:
        if name.casefold().endswith(ending):
            return name[: -len(ending)]
    return None
