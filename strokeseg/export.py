"""Write the ensemble as one bundle: a .zip that holds all that `predict` needs.

Its members lie in it twice, for PyTorch and for onnxruntime; both predict validation
cases first, and must agree.

With `--to nnunet` it writes no ensemble but the experiment's cases and splits, as a raw data set
of nnU-Net under nnunet_raw/ in the experiment's folder, for training nnU-Net on the same folds;
its README.md says how.

    strokeseg export --experiment siss-like --output stroke-ensemble.zip
    strokeseg export --experiment siss-like --to nnunet --number 501
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strokeseg import cli
from strokeseg.errors import UserError

if TYPE_CHECKING:
    from strokeseg.records.experiment import Experiment

_NNUNET_NUMBER = 501


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("export", __doc__)
    cli.add_experiment_options(parser)
    parser.add_argument(
        "--to",
        choices=("bundle", "nnunet"),
        default="bundle",
        help="what to write (default: bundle)",
    )
    parser.add_argument(
        "--number",
        type=int,
        default=_NNUNET_NUMBER,
        help=f"of nnU-Net's data set (default: {_NNUNET_NUMBER})",
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
        if options.to == "nnunet":
            if options.output is not None:
                raise UserError("--output: a data set of nnU-Net goes to nnunet_raw/; leave it out")
            _export_nnunet(experiment, options.number)
            return cli.DONE
        export(experiment, options.output or experiment.bundle_zip)
        return cli.DONE

    return cli.run_command(work)


def export(experiment: Experiment, path: Path) -> None:
    """Write the bundle; print how well its runtimes agree, and its size.

    Raises:
        UserError: When nothing is promoted, no validation case can be read, the runtimes
            disagree, or the bundle cannot be written.
    """
    from strokeseg.ensemble.bundle import check_place, exported_record, write_bundle
    from strokeseg.exporting.bundling import accompanying_files, export_members, parity_cases
    from strokeseg.records.preparation import read_preparation

    check_place(path)
    folder = experiment.ensemble_folder
    if not folder.exists():
        raise UserError(
            f"{folder}: there is no ensemble; run strokeseg promote "
            f"--experiment {experiment.name} first"
        )
    record = exported_record(folder)
    preparation = read_preparation(experiment)
    if record.preparation_hash != preparation.fingerprint:
        raise UserError(f"{folder}: was made from other data than are prepared now; promote again")
    cases = parity_cases(experiment, preparation, record)
    with cli.progress("Exporting members") as show:
        onnx_files, parity = export_members(folder, record, cases, show)
    extra = accompanying_files(experiment, preparation, record, parity)
    write_bundle(path, folder, onnx_files=onnx_files, extra=extra)
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else ""
    print(parity)
    print(f"Bundle: {path} ({len(onnx_files)} members{size})")


def _export_nnunet(experiment: Experiment, number: int) -> None:
    from strokeseg.exporting.nnunet_dataset import write_nnunet_dataset

    with cli.logging_to(experiment.log_folder / "export.log"):
        folder = write_nnunet_dataset(experiment, number, cli.progress)
    print(f"nnU-Net's data set: {folder}; {folder / 'README.md'} says how to train on it")


if __name__ == "__main__":
    sys.exit(main())
