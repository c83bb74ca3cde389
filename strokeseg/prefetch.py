"""Gather what a cluster without a network needs into one folder: wheels and pretrained weights.

Run it in a checkout on a machine that has a network. FOLDER/wheels then holds strokeseg and all
that it needs, in the versions of constraints.txt; FOLDER/weights the encoders that the search
spaces may want pretrained, as --weights-dir reads them; beside them lie the experiments,
search spaces and launch files that ship. SHA256SUMS has the checksums of all, and README.txt, which
is printed too, the two commands to give over there.

The same command goes on where it was interrupted. What cannot be had is named in a line each, all
else is kept, and the exit code is 1.

    strokeseg prefetch offline
    strokeseg prefetch offline --python 3.12 --machine aarch64
    strokeseg prefetch offline --only weights --space my-space.yaml
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import strokeseg
from strokeseg import cli
from strokeseg.errors import UserError
from strokeseg.files import file_sha256, unwritable, write_text
from strokeseg.learning.weights import find_encoder_weights, write_encoder_weights
from strokeseg.phrases import count
from strokeseg.tuning.space_file import load_space
from strokeseg.wheels import GLIBC_MINOR, Target, build_wheel, fetch_wheels, own_target, resolve

# What the nodes of a cluster run, the search and all around it.
EXTRAS = ("cluster", "predict", "search")
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")

_CHECKOUT = Path(__file__).resolve().parents[1]
_SPACES = "search_spaces/*.yaml"
_SHIPPED = ("experiments/*/experiment.yaml", _SPACES, "cluster/slurm.sh", "cluster/on-premise.yaml")
_SEQUENCES = 4
_README, _SUMS, _REQUIREMENTS = "README.txt", "SHA256SUMS", "requirements.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = cli.parser("prefetch", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where all of it goes")
    parser.add_argument(
        "--space",
        action="append",
        type=Path,
        metavar="FILE",
        help="a search space whose encoders are wanted; may be repeated (default: all that ship)",
    )
    here = own_target()
    parser.add_argument(
        "--python",
        choices=PYTHONS,
        default=here.python,
        help=f"the cluster's Python (default: this one's version, {here.python})",
    )
    parser.add_argument(
        "--machine",
        choices=MACHINES,
        default=here.machine,
        help=f"the cluster's kind of processor (default: this one's, {here.machine})",
    )
    parser.add_argument("--only", choices=("weights", "wheels"), help="leave out the other")
    options = parser.parse_args(arguments)
    return cli.run_command(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    folder: Path = options.folder.absolute()
    target = Target(python=options.python, machine=options.machine)
    faults: list[str] = []
    try:
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        # They say that all is there; they come back at the end.
        for name in (_README, _SUMS):
            (folder / name).unlink(missing_ok=True)
        _copy_shipped(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    if options.only != "wheels":
        spaces = options.space or sorted(_CHECKOUT.glob(_SPACES))
        faults += _gather_weights(folder / "weights", spaces)
    if options.only != "weights":
        try:
            _gather_wheels(folder, target)
        except UserError as error:
            faults.append(str(error))
    for fault in faults:
        print(f"failed: {fault}", file=sys.stderr)
    if faults:
        print(f"{folder} is not complete; what it holds stays", file=sys.stderr)
        return cli.SOME_FAILED
    _write_sums(folder)
    text = _instructions(folder, target)
    write_text(folder / _README, text)
    print(text, end="")
    return cli.DONE


def _copy_shipped(folder: Path) -> None:
    for path in (path for pattern in _SHIPPED for path in _CHECKOUT.glob(pattern)):
        copy = folder / path.relative_to(_CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _gather_weights(folder: Path, spaces: Sequence[Path]) -> list[str]:
    """Gather the weights of all encoders that some spaces may want pretrained; return faults."""
    encoders: dict[str, None] = {}
    faults = []
    for space in spaces:
        try:
            encoders |= dict.fromkeys(load_space(space, _SEQUENCES).pretrained_encoders())
        except UserError as error:
            faults.append(str(error))
    with cli.progress("Gathering weights") as show:
        for number, encoder in enumerate(encoders):
            show(number, len(encoders), encoder)
            path = folder / f"{encoder}.safetensors"
            try:
                # Read even when it is there, to see that it is whole.
                weights = find_encoder_weights(encoder, folder)
                if not path.is_file():
                    write_encoder_weights(path, weights)
            except UserError as error:
                faults.append(f"{error}; here that folder is {folder}")
        show(len(encoders), len(encoders), "")
    return faults


def _gather_wheels(folder: Path, target: Target) -> None:
    """Gather strokeseg's wheel and all that it needs, and list them for pip."""
    wheels = folder / "wheels"
    own = build_wheel(_CHECKOUT, wheels)
    requirements = resolve(own, EXTRAS, _CHECKOUT / "constraints.txt", target)
    write_text(folder / _REQUIREMENTS, requirements)
    with cli.progress("Gathering wheels") as show:
        fetch_wheels(requirements, wheels, target, show)


def _write_sums(folder: Path) -> None:
    patterns = (*_SHIPPED, "weights/*", "wheels/*.whl", _REQUIREMENTS)
    names = sorted(
        path.relative_to(folder).as_posix()
        for pattern in patterns
        for path in folder.glob(pattern)
        if not path.name.startswith(".")
    )
    lines = (f"{file_sha256(folder / name)}  {name}\n" for name in names)
    write_text(folder / _SUMS, "".join(lines))


def _instructions(folder: Path, target: Target) -> str:
    """Say what the folder holds, and the commands to give on the cluster."""
    wheels, weights = list(folder.glob("wheels/*.whl")), list(folder.glob("weights/*.safetensors"))
    size_gb = sum(path.stat().st_size for path in (*wheels, *weights)) / 1e9
    check = f"sha256sum --check --quiet {_SUMS}"
    run = f"strokeseg run --experiment NAME --data CASES{' --weights-dir weights' * bool(weights)}"
    head = (
        f"strokeseg {strokeseg.__version__} for a cluster without a network: "
        f"{count(len(wheels), 'wheel')}, weights of {count(len(weights), 'encoder')}, "
        f"{size_gb:.2f} GB"
    )
    if wheels:
        head += f"; CPython {target.python}, Linux {target.machine}, glibc 2.{GLIBC_MINOR} or newer"
        check += (
            f" && python{target.python} -m venv .venv && .venv/bin/pip install --no-index "
            f"--find-links wheels --require-hashes --requirement {_REQUIREMENTS}"
        )
        run = f".venv/bin/{run}"
    where = "Copy this folder to where all nodes see it, and there, in it:"
    slurm = "Under Slurm the second is sbatch cluster/slurm.sh, with the same options."
    return f"{head}\n\n{where}\n\n    {check}\n    {run}\n\n{slurm}\n"


if __name__ == "__main__":
    sys.exit(main())
