"""Score the ensemble on the locked test cases, in 3D, on each case's own grid.

Every axis alone, the vote of the axes, and, where `promote` kept both, the vote of the best
pretrained members beside that of the best from scratch. Masks are written as NIfTI. If a
case fails, the others go on; the failed ones are listed and the exit code is 1.

With --on validation the patients that chose the trials are scored instead, which flatters
the ensemble; everything that is written says so.

    strokeseg evaluate --experiment siss-like
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from strokeseg import cli
from strokeseg.devices import add_device_option, device_of
from strokeseg.errors import CaseError, UserError
from strokeseg.experiment import Experiment, code_version
from strokeseg.files import replacing_folder, write_csv, write_json
from strokeseg.imaging.cases import Case, mask_name
from strokeseg.imaging.metrics import Scores, score_masks
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.imaging.splits import TEST
from strokeseg.imaging.volume import write_mask
from strokeseg.learning.ensemble import Ensemble, segment
from strokeseg.learning.ensemble_record import RECORD_NAME, read_ensemble_record
from strokeseg.learning.torch_experts import load_ensemble
from strokeseg.pages import METRIC_TITLES
from strokeseg.preparation.record import Preparation, changed_files, read_preparation
from strokeseg.summary import SIDES, ensemble_hash

VOTE = "vote"
METRICS = tuple(Scores.__dataclass_fields__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("evaluate", __doc__)
    cli.add_experiment_options(parser)
    add_device_option(parser)
    add_side_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options))


def add_side_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which patients are scored."""
    parser.add_argument(
        "--on",
        choices=SIDES,
        default="test",
        help="which patients to score (default: test)",
    )


def _work(options: argparse.Namespace) -> int:
    experiment = cli.experiment_of(options)
    with cli.logging_to(experiment.log_folder / "evaluate.log"):
        summary = evaluate(experiment, device_of(options), on=options.on)
    print_summary(summary)
    print(f"All scores: {experiment.metrics_csv(options.on)}")
    return cli.SOME_FAILED if summary["failed"] else cli.DONE


def evaluate(experiment: Experiment, device: torch.device, *, on: str) -> dict[str, Any]:
    """Score the ensemble, write scores and masks, and return the summary.

    Args:
        experiment: Whose ensemble.
        device: Where to compute.
        on: `test`, or `validation` for the patients that chose the trials.

    Raises:
        UserError: When there is no ensemble, no test case, or no case could be scored.
    """
    preparation = read_preparation(experiment)
    ensembles = _load_ensembles(experiment, preparation, device)
    side = TEST if on == "test" else str(experiment.config.splits.validation_fold)
    cases = [preparation.cases[name] for name in preparation.names(side)]
    if not cases:
        raise UserError(
            f"{experiment.splits_json}: there is no {on} patient; for a test set choose "
            "splits.test_share or splits.test_patients under another experiment name, or score "
            "the patients that chose the trials with --on validation"
        )
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with (
        replacing_folder(experiment.evaluation_folder(on)) as folder,
        cli.progress("Evaluating cases") as show,
    ):
        for index, case in enumerate(cases):
            show(index, len(cases), f"case {case.name}")
            try:
                rows += _score_case(experiment, case, ensembles, folder / "masks")
            except CaseError as error:
                failed[case.name] = str(error)
        show(len(cases), len(cases), "")
        if not rows:
            reasons = "; ".join(f"{case}: {reason}" for case, reason in failed.items())
            raise UserError(f"no {on} case could be scored: {reasons}")
        summary = {
            "experiment": experiment.name,
            "on": on,
            "ensemble_sha256": ensemble_hash(experiment),
            "splits_hash": preparation.splits_hash,
            "code_version": code_version(),
            "cases": len(cases),
            "failed": failed,
            "methods": _summarise(rows),
        }
        write_csv(folder / experiment.metrics_csv(on).name, ["case", "method", *METRICS], rows)
        write_json(folder / experiment.summary_json(on).name, summary)
    return summary


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the means over the test cases, and the cases that failed."""
    scored = summary["cases"] - len(summary["failed"])
    cli.print_table(
        f"Mean over {scored} "
        f"{'unseen test' if summary['on'] == 'test' else 'validation'} cases, in 3D",
        ("method", *METRIC_TITLES.values()),
        [
            (method, *(f"{means['mean'][metric]:.3f}" for metric in METRIC_TITLES))
            for method, means in summary["methods"].items()
        ],
    )
    for case, reason in summary["failed"].items():
        print(f"failed: case {case}: {reason}", file=sys.stderr)


def _load_ensembles(
    experiment: Experiment, preparation: Preparation, device: torch.device
) -> dict[str, Ensemble]:
    folder = experiment.ensemble_folder
    if not folder.exists():
        raise UserError(
            f"{folder}: there is no ensemble; run strokeseg promote "
            f"--experiment {experiment.name} first"
        )
    record = read_ensemble_record(folder / RECORD_NAME)
    if record.preparation_hash != preparation.fingerprint:
        raise UserError(f"{folder}: was made from other data than are prepared now; promote anew")
    ensemble = load_ensemble(folder, device=device)
    comparisons = {
        f"{VOTE}_{name}": ensemble
        if members == record.members
        else load_ensemble(folder, name, device)
        for name, members in record.comparison.items()
    }
    return {VOTE: ensemble, **comparisons}


def _score_case(
    experiment: Experiment,
    case: Case,
    ensembles: Mapping[str, Ensemble],
    masks_folder: Path,
) -> list[dict[str, Any]]:
    """Score a case by every method and write the masks of the ensemble itself."""
    if changed := changed_files(experiment, case):
        raise CaseError(f"{', '.join(changed)}: not as it was when the split was drawn; restore it")
    prepared = _prepare(experiment, case, ensembles[VOTE])
    grid = prepared.native_grid
    decision = segment(ensembles[VOTE], prepared)
    masks = {**decision.axis_masks, VOTE: decision.mask}
    for method, mask in masks.items():
        write_mask(masks_folder / mask_name(case.name, method), mask, grid)
    for method, ensemble in ensembles.items():
        if ensemble is ensembles[VOTE]:
            masks[method] = masks[VOTE]
        else:
            masks[method] = segment(ensemble, prepared).mask
    if prepared.native_mask is None:
        raise CaseError(f"case {case.name} has no lesion mask to be scored against")
    return [
        {
            "case": case.name,
            "method": method,
            **asdict(score_masks(prepared.native_mask, mask, grid.spacing_mm)),
        }
        for method, mask in masks.items()
    ]


def _prepare(experiment: Experiment, case: Case, ensemble: Ensemble) -> PreparedCase:
    return prepare_case(
        case.images,
        sequences=ensemble.record.sequences,
        mask=case.mask,
        lesion_labels=experiment.config.data.lesion_labels,
        reference=ensemble.record.reference,
        spacing_mm=ensemble.record.spacing_mm,
    )


def _summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        method: {
            name: {
                metric: statistic([row[metric] for row in rows if row["method"] == method])
                for metric in METRICS
            }
            for name, statistic in (("mean", fmean), ("median", median))
        }
        for method in methods
    }


if __name__ == "__main__":
    sys.exit(main())
