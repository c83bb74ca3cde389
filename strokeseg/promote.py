"""Make the best trials of the three axes an ensemble, by their validation scores alone.

The best complete trials of every axis are the candidates. The plain hard majority vote of the
axes' best is where the choice starts; then more members an axis, a soft vote, other thresholds
and a smallest lesion size are tried, one after the other, by mean 3D Dice over the validation
patients. A step is taken only if these patients bear it out beyond luck (ensemble.choose: guard),
and the table says what each of them brought. The test set is not looked at. Where every axis has
tried both, the best pretrained trials and the best from scratch are kept beside the ensemble, so
that `evaluate` can compare the two.

Every candidate predicts every validation case once, in parallel with Ray. The predictions are kept,
so that the same command goes on after an interruption.

    strokeseg promote --experiment siss-like
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from strokeseg import cli
from strokeseg.ensemble.devices import add_device_option, device_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("promote", __doc__)
    cli.add_experiment_options(parser)
    add_device_option(parser)
    cli.add_address_option(parser)
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options), options.address)


def _work(options: argparse.Namespace) -> int:
    from strokeseg.selection.promotion import promote

    experiment = cli.experiment_of(options)
    with cli.logging_to(experiment.log_folder / "promote.log"):
        promote(experiment, device_of(options))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
