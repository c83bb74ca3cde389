r"""Segment new cases with a bundle: one mask a case, on the case's own grid.

Cases come from a folder in SISS layout, from a CSV manifest (case and one column a
sequence), or as named files of one case. If a case fails, the others go on; the failed
ones are listed and the exit code is 1.

    strokeseg predict --bundle bundle.zip --input cases --output masks
    strokeseg predict --bundle bundle.zip --output masks --case anna \
        --image T1=t1.nii.gz --image T2=t2.nii.gz --image DWI=dwi.nii.gz --image FLAIR=flair.nii.gz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.devices import add_device_option
from strokeseg.errors import CaseError, UserError
from strokeseg.files import unwritable
from strokeseg.imaging.cases import (
    Case,
    find_siss_cases,
    is_case_name,
    mask_name,
    read_manifest,
)
from strokeseg.imaging.metrics import volume_ml
from strokeseg.imaging.prepared import prepare_case
from strokeseg.imaging.volume import write_mask
from strokeseg.learning.bundle import open_bundle
from strokeseg.learning.ensemble import Ensemble, segment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("--bundle", required=True, type=Path, help="a .zip or folder by export")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="for masks")
    parser.add_argument(
        "--input", type=Path, metavar="PATH", help="a folder in SISS layout, or a CSV manifest"
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="SEQUENCE=FILE",
        help="one sequence of one case, in place of --input; once for every sequence",
    )
    parser.add_argument("--case", default="case", metavar="NAME", help="name of that case")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(options.output, error) from None
    ensemble = open_bundle(options.bundle, device=options.device)
    cases = _cases(options, ensemble.record.sequences)
    volumes: dict[str, float] = {}
    failed: dict[str, str] = {}
    with cli.progress("Segmenting cases") as show:
        for index, case in enumerate(cases):
            show(index, len(cases), f"case {case.name}")
            try:
                volumes[case.name] = predict(ensemble, case, options.output)
            except CaseError as error:
                failed[case.name] = str(error)
        show(len(cases), len(cases), "")
    for name, volume in volumes.items():
        found = f"{volume:.2f} ml" if volume else "no lesion found"
        print(f"{name}: {found}, {options.output / mask_name(name)}")
    for name, reason in failed.items():
        print(f"failed: case {name}: {reason}", file=sys.stderr)
    if not volumes:
        raise UserError(f"none of {len(cases)} cases could be segmented; see the lines above")
    return cli.SOME_FAILED if failed else cli.DONE


def predict(ensemble: Ensemble, case: Case, output: Path) -> float:
    """Write one case's mask and return the lesion's volume in ml.

    Raises:
        CaseError: When the case's files are not as they must be.
        UserError: When the mask cannot be written.
    """
    record = ensemble.record
    prepared = prepare_case(
        case.images,
        sequences=record.sequences,
        reference=record.reference,
        spacing_mm=record.spacing_mm,
        faults=case.faults,
    )
    mask = segment(ensemble, prepared).mask
    write_mask(output / mask_name(case.name), mask, prepared.native_grid)
    return volume_ml(mask, prepared.native_grid.spacing_mm)


def _cases(options: argparse.Namespace, sequences: Sequence[str]) -> list[Case]:
    if bool(options.image) == (options.input is not None):
        raise UserError("give either --input or one --image for every sequence")
    if options.image:
        if not is_case_name(options.case):
            raise UserError(f"--case {options.case}: must be letters, digits and . _ + - only")
        named = [_named_file(image, sequences) for image in options.image]
        images = dict(named)
        if len(images) < len(named):
            raise UserError("--image: every sequence must be given once only")
        return [Case(name=options.case, patient=options.case, images=images, mask=None)]
    if options.input.is_file():
        return read_manifest(options.input, sequences, masks=False)
    return find_siss_cases(options.input, sequences, masks=False)


def _named_file(image: str, sequences: Sequence[str]) -> tuple[str, Path]:
    sequence, separator, path = image.partition("=")
    if not separator or sequence not in sequences:
        raise UserError(
            f"--image {image}: must be SEQUENCE=FILE with one of the bundle's sequences, "
            f"{', '.join(sequences)}"
        )
    return sequence, Path(path)


if __name__ == "__main__":
    sys.exit(main())
