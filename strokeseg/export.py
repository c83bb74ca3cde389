"""Write the ensemble as one bundle: a .zip that holds all that `predict` needs.

Its members lie in it twice, for PyTorch and for onnxruntime; both are asked about validation
cases first, and must agree.

strokeseg export --experiment siss-like --output stroke-ensemble.zip
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from strokeseg import cli
from strokeseg.bundling import accompanying_files, export_members, parity_cases
from strokeseg.errors import UserError
from strokeseg.experiment import Experiment
from strokeseg.learning.bundle import exported_record, write_bundle
from strokeseg.preparation.record import read_preparation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("export", __doc__)
    cli.add_experiment_options(parser)
    parser.add_argument(
        "--to",
        choices=("bundle",),
        default="bundle",
        help="what to write (default: bundle)",
    )
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
    """Write the bundle; print how well its runtimes agree, and its size.

    Raises:
        UserError: When nothing is promoted, no validation case can be read, the runtimes
            disagree, or the bundle cannot be written.
    """
    folder = experiment.ensemble_folder
    if not folder.exists():
        raise UserError(
            f"{folder}: there is no ensemble; run strokeseg promote "
            f"--experiment {experiment.name} first"
        )
    record = exported_record(folder)
    preparation = read_preparation(experiment)
    if record.preparation_hash != preparation.fingerprint:
        raise UserError(f"{folder}: was made from other data than are prepared now; promote anew")
    cases = parity_cases(experiment, preparation, record)
    with cli.progress("Exporting members") as show:
        onnx_files, parity = export_members(folder, record, cases, show)
    extra = accompanying_files(experiment, preparation, record, parity)
    write_bundle(path, folder, onnx_files=onnx_files, extra=extra)
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else ""
    print(parity)
    print(f"Bundle: {path} ({len(onnx_files)} members{size})")


if __name__ == "__main__":
    sys.exit(main())
