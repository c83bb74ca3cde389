"""The evaluation of an experiment's ensemble, and what is printed of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from platform import python_version

import torch

from strokeseg import cli
from strokeseg.compute.session import ray_session
from strokeseg.compute.tasks import cpus_a_task
from strokeseg.errors import UserError
from strokeseg.evaluation.baselines import check_baselines, score_baselines
from strokeseg.evaluation.cases import cases_to_score
from strokeseg.evaluation.cautions import caution_of
from strokeseg.evaluation.methods import all_members, votes_of
from strokeseg.evaluation.scoring import Job
from strokeseg.evaluation.subset import score_subset
from strokeseg.evaluation.summarise import (
    BOOTSTRAP,
    by_size,
    disagreement_of,
    methods_of,
    paired_tests,
)
from strokeseg.imaging.metric_names import METRICS, OF_METHODS, Policy
from strokeseg.records.ensemble import (
    RECORD_NAME,
    EnsembleRecord,
    read_ensemble_record,
)
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.phrases import count
from strokeseg.records.preparation import Preparation, read_preparation
from strokeseg.records.scores import Summary
from strokeseg.records.summary import ensemble_hash, interval_text, read_summary, write_scores
from strokeseg.storage.files import write_json

_LIBRARIES = ("torch", "ray", "numpy")


def evaluate(
    experiment: Experiment,
    device: torch.device,
    *,
    on: str,
    policy: Policy = "isles22",
    baselines: Mapping[str, Path] | None = None,
) -> Summary:
    """Score the ensemble, write scores, masks and maps, and return the summary.

    Args:
        on: `test`, or `validation` for the patients that chose the trials.
        policy: How empty masks count, see `imaging.metrics`.
        baselines: Folders of masks from elsewhere by name.

    Raises:
        UserError: When there is no ensemble, no test case, no case could be scored, or a
            baseline is none.
    """
    preparation = read_preparation(experiment)
    record = _read_record(experiment, preparation)
    cases = cases_to_score(experiment, preparation, on)
    baselines = baselines or {}
    check_baselines(baselines, _own_methods(record))
    with (
        ray_session(experiment.folder, experiment.data_path),
        cli.progress("Evaluating cases") as show,
    ):
        job = Job(
            config=experiment.config,
            ensemble_folder=experiment.ensemble_folder,
            ensemble_sha256=ensemble_hash(experiment),
            masks_folder=experiment.masks_folder(on),
            uncertainty_folder=experiment.uncertainty_folder(on),
            policy=policy,
            device=device.type,
            threads=1 if device.type != "cpu" else cpus_a_task(len(cases)),
        )
        scored = score_subset(experiment, job, cases, experiment.scored_folder(on), show)
        if not scored.results:
            reasons = "; ".join(f"{case}: {reason}" for case, reason in scored.failed.items())
            raise UserError(f"no {on} case could be scored: {reasons}")
        others = score_baselines(
            experiment,
            job,
            baselines,
            [case for case in cases if case.name in scored.results],
            experiment.baselines_folder(on),
        )
    if scored.kept:
        print(f"{scored.kept} of {len(cases)} cases were scored before")
    for name in others.outdated:
        print(
            f"{name}: left out, since it was scored on other cases, by another policy or by "
            f"other code; score it again with --predictions FOLDER --name {name}",
            file=sys.stderr,
        )
    rows = [row for result in scored.results.values() for row in result.rows] + [*others.rows]
    summary = {
        "experiment": experiment.name,
        "on": on,
        "caution": caution_of(experiment, record, on),
        "policy": policy,
        "ensemble_sha256": job.ensemble_sha256,
        "splits_hash": preparation.splits_hash,
        "preparation_hash": preparation.fingerprint,
        "code_version": code_version(),
        "versions": {
            "python": python_version(),
            **{library: metadata.version(library) for library in _LIBRARIES},
        },
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "failed": scored.failed,
        "baselines_failed": dict(others.failed),
        "bootstrap": BOOTSTRAP,
        "methods": methods_of(rows),
        "by_size": by_size(rows),
        "tests": paired_tests(rows),
        "disagreement": disagreement_of(rows, scored.results),
    }
    write_scores(experiment.metrics_csv(on), rows)
    write_json(experiment.summary_json(on), summary)
    return read_summary(experiment.summary_json(on))


def print_summary(summary: Summary) -> None:
    """Print means with intervals, what the tests say, and the cases that failed."""
    methods = {
        name: found for name, found in summary["methods"].items() if found["kind"] != "member"
    }
    cases = max(found["cases"] for found in methods.values())
    subset = "unseen test" if summary["on"] == "test" else "validation"
    cli.print_table(
        f"Mean over {cases} {subset} cases, in 3D (95 % interval over patients)",
        ("method", "cases", *(METRICS[metric].heading for metric in OF_METHODS)),
        [
            (
                name,
                str(found["cases"]),
                *(interval_text(found["metrics"][metric], 2) for metric in OF_METHODS),
            )
            for name, found in methods.items()
        ],
    )
    for test in summary["tests"]:
        difference = interval_text({**test, "mean": test["mean_difference"]})
        print(
            f"Dice of {test['first']} minus {test['second']}: {difference}, p = {test['p']:.3g} "
            f"({count(test['patients'], 'patient')})"
        )
    if summary["caution"]:
        print(f"Caution: {summary['caution']}")
    for case, reason in {**summary["failed"], **summary["baselines_failed"]}.items():
        print(f"failed: case {case}: {reason}", file=sys.stderr)


def _read_record(experiment: Experiment, preparation: Preparation) -> EnsembleRecord:
    folder = experiment.ensemble_folder
    if not folder.exists():
        raise UserError(
            f"{folder}: there is no ensemble; run strokeseg promote "
            f"--experiment {experiment.name} first"
        )
    record = read_ensemble_record(folder / RECORD_NAME)
    if record.preparation_hash != preparation.fingerprint:
        raise UserError(f"{folder}: was made from other data than are prepared now; promote again")
    return record


def _own_methods(record: EnsembleRecord) -> list[str]:
    members = [
        name.removesuffix(".safetensors")
        for names in all_members(record).values()
        for name in names
    ]
    return [*members, *record.members, *(vote.method for vote in votes_of(record))]
