"""nnU-Net 2D, trained for a given CPU time on our folds, and its masks of the locked test cases.

Reads what `strokeseg export --to nnunet` wrote, plans and preprocesses it with nnU-Net, trains
the configuration 2d on one fold with nnU-Net's own trainer until the CPU time is spent (that of
training alone: neither preprocessing nor prediction), and predicts the test cases. Then score its
masks into our table:

strokeseg export --experiment siss-like --to nnunet
python -m benchmarks.nnunet_train --raw runs/siss-like/nnunet_raw --minutes 45 --output nnunet-masks
strokeseg evaluate --experiment siss-like --predictions nnunet-masks --name nnU-Net
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.part import tell
from benchmarks.peers import CHECKOUT, DEFAULT_PEERS, missing, peer_python

_TRAINERS = CHECKOUT / "benchmarks" / "nnunet_trainers"
_TRAINER = "CPUMinutesTrainer"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, help="folder of the raw data set")
    parser.add_argument("--number", type=int, default=501, help="of the data set (default: 501)")
    parser.add_argument("--fold", type=int, default=0, help="that validates (default: 0)")
    parser.add_argument("--minutes", type=float, required=True, help="CPU minutes of training")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="the peers' environment")
    parser.add_argument("--work", type=Path, help="keep nnU-Net's files in this folder")
    options = parser.parse_args()
    if reason := missing(options.peers):
        parser.error(reason)
    with tempfile.TemporaryDirectory(prefix="nnunet-") as temporary:
        train_and_predict(options, options.work or Path(temporary))
    print(f"masks: {options.output}")


def train_and_predict(options: argparse.Namespace, work: Path) -> None:
    """Run nnU-Net's own commands, one after another."""
    environment = {
        "nnUNet_raw": str(options.raw.absolute()),
        "nnUNet_preprocessed": str((work / "preprocessed").absolute()),
        "nnUNet_results": str((work / "results").absolute()),
        "nnUNet_extTrainer": str(_TRAINERS),
        # The compiled network would spend minutes before its first step.
        "nnUNet_compile": "false",
        "NNUNET_CPU_MINUTES": str(options.minutes),
    }
    number = str(options.number)
    (found,) = options.raw.glob(f"Dataset{options.number:03d}_*")
    call = _caller(options.peers, environment)
    tell("planning and preprocessing ...")
    call("nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "-npfp", "2", "-np", "2")
    splits = work / "preprocessed" / found.name / "splits_final.json"
    # nnU-Net reads its splits there, and draws others where there are none.
    splits.write_bytes((found / "splits_final.json").read_bytes())
    tell(f"training for {options.minutes:g} CPU minutes ...")
    # Without loaders of its own: their CPU time the trainer would not see.
    alone = _caller(options.peers, {**environment, "nnUNet_n_proc_DA": "0"})
    alone("nnUNetv2_train", number, "2d", str(options.fold), "-tr", _TRAINER, "-device", "cpu")
    tell("predicting ...")
    call(
        "nnUNetv2_predict",
        *("-i", str(found / "imagesTs"), "-o", str(options.output.absolute())),
        *("-d", number, "-c", "2d", "-f", str(options.fold), "-tr", _TRAINER),
        *("-device", "cpu", "-npp", "1", "-nps", "1"),
    )


def _caller(peers: Path, environment: Mapping[str, str]) -> Caller:
    return Caller(peer_python(peers).parent, {**os.environ, **environment})


class Caller:
    """Runs nnU-Net's commands in its environment; the first that fails ends it all."""

    def __init__(self, programs: Path, environment: Mapping[str, str]) -> None:
        self._programs = programs
        self._environment = dict(environment)

    def __call__(self, program: str, *arguments: str) -> None:
        """Run one command and show what it says.

        Raises:
            SystemExit: When it fails.
        """
        command = [str(self._programs / program), *arguments]
        if code := subprocess.run(command, env=self._environment, check=False).returncode:
            sys.exit(f"{program} ended with {code}; its output stands above")


if __name__ == "__main__":
    main()
