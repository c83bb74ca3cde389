"""Write the ensemble as one bundle: a .zip that holds all that `predict` needs.

strokeseg export --experiment siss-like --output stroke-ensemble.zip
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.bundling import export_members, parity_cases
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.learning.bundle import exported_record, write_bundle
from strokeseg.pages import model_card
from strokeseg.preparation.record import read_preparation
from strokeseg.summary import current_summary

_LICENCE = """\
The weights in this bundle belong to whoever trained and exported them, and so does the
decision about their licence: replace this text by it before the bundle is passed on.
Weights that were pretrained elsewhere keep the terms of their source. The software that
made the bundle, strokeseg, is licensed under Apache-2.0.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("export", __doc__)
    cli.add_experiment_options(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a .zip, or a folder (default: bundle.zip in the experiment's folder)",
    )
    options = parser.parse_args(arguments)

    def work() -> int:
        experiment = cli.experiment_of(options)
        export(experiment, options.output or experiment.bundle_zip)
        return cli.DONE

    return cli.run_command(work)


def export(experiment: Experiment, path: Path) -> None:
    """Write the bundle and print its size.

    Raises:
        UserError: When nothing is promoted, or the bundle cannot be written.
    """
    folder = experiment.ensemble_folder
    if not folder.exists():
        raise UserError(
            f"{folder}: there is no ensemble; run strokeseg promote "
            f"--experiment {experiment.name} first"
        )
    record = exported_record(folder)
    preparation = read_preparation(experiment)
    onnx_files, parity = export_members(
        folder, record, parity_cases(experiment, preparation, record)
    )
    card = model_card(record, preparation, current_summary(experiment))
    extra = {"LICENSE": _LICENCE, "docs/README.md": card}
    write_bundle(path, folder, onnx_files=onnx_files, extra=extra)
    members = sum(len(names) for names in record.members.values())
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else ""
    print(
        f"ONNX: at most {parity.largest_difference:.1e} from PyTorch in probability, on "
        f"{', '.join(parity.cases)}"
    )
    print(f"Bundle: {path} ({members} members{size})")


if __name__ == "__main__":
    sys.exit(main())
