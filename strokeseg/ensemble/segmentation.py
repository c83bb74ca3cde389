"""The segmentation of all cases that `predict` is given, into one folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.ensemble.bundle import bundle_sha256, open_bundle
from strokeseg.ensemble.prediction import (
    CasePrediction,
    Tool,
    find_done,
    find_segmented,
    predict_case,
)
from strokeseg.ensemble.runtimes import choose_runtime
from strokeseg.errors import CaseError, UserError, printable
from strokeseg.imaging.cases import Case, bids_name
from strokeseg.imaging.derivatives import describe_dataset, refuse_scans
from strokeseg.imaging.layouts.detection import find_cases
from strokeseg.imaging.layouts.named_files import name_case
from strokeseg.records.experiment import code_version
from strokeseg.storage.files import unwritable, write_csv

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime"}


def segment_cases(options: argparse.Namespace) -> int:
    """Segment the cases that the options of `predict` name; return the exit code.

    Raises:
        UserError: When an option is wrong, the bundle cannot be used, or no case can be segmented.
    """
    tool = _tool(options)
    cases = _cases(options, tool.ensemble.record.sequences)
    refuse_scans(options.output)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(options.output, error) from None
    # All of them first: another bundle's masks must stop the command before it writes any.
    done, refused = ({}, {}) if options.overwrite else _find_done(tool, cases, options.output)
    waiting = [case for case in cases if case.name not in done and case.name not in refused]
    segmented, faulty = _segment(tool, waiting, options.output)
    found, failed = {**done, **segmented}, {**refused, **faulty}
    for name, prediction in found.items():
        print(f"{name}: {prediction}, {prediction.files.mask}{_when(tool, prediction)}")
    for name, reason in failed.items():
        print(printable(f"failed: case {name}: {reason}"), file=sys.stderr)
    if not found:
        raise UserError(f"none of {len(cases)} cases could be segmented; see the lines above")
    _describe(tool, options.output)
    return cli.SOME_FAILED if failed else cli.DONE


def _tool(options: argparse.Namespace) -> Tool:
    runtime = choose_runtime(options.runtime)
    ensemble = open_bundle(options.bundle, runtime, options.device)
    sequences = ensemble.record.sequences
    if options.reference is not None and options.reference not in sequences:
        raise UserError(
            f"--reference {options.reference}: must be one of the bundle's sequences, "
            f"{', '.join(sequences)}"
        )
    return Tool(
        ensemble=ensemble,
        bundle=options.bundle,
        bundle_sha256=bundle_sha256(options.bundle),
        runtime=_PACKAGES[runtime],
        code_version=code_version(),
        reference=options.reference or ensemble.record.reference,
    )


def _cases(options: argparse.Namespace, sequences: Sequence[str]) -> list[Case]:
    if bool(options.image) == (options.input is not None):
        raise UserError("give either --input or one --image for every sequence")
    if bool(options.image) != (options.case is not None):
        raise UserError(
            "--case NAME and --image belong together: the files of the case are named by it, so "
            "that no patient's replace another's; cases of --input have names"
        )
    if options.image:
        return [name_case(options.case, options.image, sequences)]
    cases = find_cases(options.input, sequences, layout=options.layout, masks=False)
    names = Counter(bids_name(case.name) for case in cases)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise UserError(
            f"{options.input}: the files of several cases would be named {', '.join(repeated)}; "
            "rename the cases"
        )
    return cases


def _find_done(
    tool: Tool, cases: Sequence[Case], output: Path
) -> tuple[dict[str, CasePrediction], dict[str, str]]:
    """Return what is done already, and why what must not be replaced is refused, by case."""
    found: dict[str, CasePrediction] = {}
    refused: dict[str, str] = {}
    for case in cases:
        try:
            prediction = find_done(tool, case, output)
        except CaseError as error:
            refused[case.name] = str(error)
            continue
        if prediction is not None:
            found[case.name] = prediction
    return found, refused


def _segment(
    tool: Tool, cases: Sequence[Case], output: Path
) -> tuple[dict[str, CasePrediction], dict[str, str]]:
    """Segment cases; return what was found, and why some failed, by case."""
    found: dict[str, CasePrediction] = {}
    failed: dict[str, str] = {}
    with cli.progress("Segmenting cases") as show:
        for index, case in enumerate(cases):
            show(index, len(cases), f"case {case.name}")
            try:
                found[case.name] = predict_case(tool, case, output)
            except CaseError as error:
                failed[case.name] = str(error)
        show(len(cases), len(cases), "")
    return found, failed


def _when(tool: Tool, prediction: CasePrediction) -> str:
    """Say that a case was kept, and what made it where that would not be the same today."""
    if not prediction.done_before:
        return ""
    made_with = (prediction.runtime, prediction.code_version)
    if made_with == (tool.runtime, tool.code_version):
        return " (done before)"
    return f" (done before, with {prediction.runtime}, strokeseg {prediction.code_version})"


def _describe(tool: Tool, output: Path) -> None:
    """Write what the folder is, and a row for every case in it, also by earlier commands."""
    describe_dataset(
        output,
        name="Stroke lesions by strokeseg",
        version=tool.code_version,
        made_by=f"bundle {tool.bundle.name}, SHA-256 of its checksums {tool.bundle_sha256}",
    )
    rows = [
        {
            "case": name,
            "lesion_ml": f"{prediction.lesion_ml:.3f}",
            "lesions": prediction.lesions,
            "mask": prediction.files.mask.relative_to(output).as_posix(),
            "bundle_sha256": prediction.bundle_sha256,
        }
        for name, prediction in find_segmented(output).items()
    ]
    columns = ["case", "lesion_ml", "lesions", "mask", "bundle_sha256"]
    write_csv(output / "lesions.csv", columns, rows)
