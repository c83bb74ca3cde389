r"""Segment new cases with a bundle, each on its own grid.

Cases come from a folder in the layout of ISLES 2015 SISS, ISLES'22, BIDS or nnU-Net, which is
recognised by the names in it, from a CSV manifest (case and one column a sequence), or as named
files of one case. What is written are BIDS derivatives: for every case the mask, the probability of
lesion, the uncertainty (where the axes disagree), a JSON file with the lesion's volume, and a
picture to check it by; and lesions.csv, a row for every case in the folder.

Cases that this bundle has segmented before are kept, so that the same command goes on where it
was stopped. A case is refused when one of its name is there that was made of other files. If a
case fails, the others go on; the failed ones are listed and the exit code is 1.

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
from strokeseg.ensemble.devices import add_device_option
from strokeseg.ensemble.runtimes import RUNTIMES
from strokeseg.imaging.layouts.detection import AUTO, LAYOUTS
from strokeseg.storage.remote_copy import fetched, is_uri, remote_copy_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("--bundle", required=True, help="a .zip or folder by export, or its URI")
    parser.add_argument("--output", required=True, metavar="PLACE", help="folder or URI for masks")
    parser.add_argument(
        "--input", metavar="PLACE", help="a folder of cases, or a CSV manifest, or its URI"
    )
    parser.add_argument(
        "--layout",
        choices=(AUTO, *LAYOUTS),
        default=AUTO,
        help="how the cases lie in it (default: auto, recognised by names)",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="SEQUENCE=FILE",
        help="one sequence of one case, in place of --input; once for every sequence",
    )
    parser.add_argument("--case", metavar="NAME", help="name of that case; needed with --image")
    parser.add_argument(
        "--reference",
        metavar="SEQUENCE",
        help="resample the others onto this one's grid (default: as in training)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="segment again what is there already"
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what computes the networks (default: torch where it is installed, else onnx)",
    )
    add_device_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _at_places(options))


def _at_places(options: argparse.Namespace) -> int:
    """Work on paths, whatever of the places are URIs."""
    from strokeseg.ensemble.segmentation import segment_cases

    options.bundle = fetched(options.bundle, "--bundle")
    options.input = fetched(options.input, "--input")
    if not is_uri(options.output):
        options.output = Path(options.output)
        return segment_cases(options)
    remote_copy = remote_copy_of(options.output)
    remote_copy.check(writes=True)
    remote_copy.fetch()
    options.output = remote_copy.folder
    with cli.publishing(remote_copy):
        return segment_cases(options)


if __name__ == "__main__":
    sys.exit(main())
