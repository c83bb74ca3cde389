"""Gather what a cluster without a network needs into one folder: wheels and pretrained weights.

Run it in a checkout on a machine that has a network. FOLDER/wheels then holds strokeseg and all
that it needs, in the versions of constraints.txt; FOLDER/weights the encoders that the search
spaces may want pretrained, as --weights-dir reads them; beside them lie the experiments and search
spaces that ship. FOLDER/README.txt has the two commands to give over there.

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
from strokeseg.mirror import fetched
from strokeseg.phrases import count
from strokeseg.tuning.space_file import load_space
from strokeseg.wheels import GLIBC_MINOR, OWN, Target, build_wheel, gather_wheels, own_target

# What the nodes of a cluster run, the search and all around it.
EXTRAS = ("cluster", "predict", "search")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")

_CHECKOUT = Path(__file__).resolve().parents[1]
_SHIPPED = ("experiments/*/experiment.yaml", "search_spaces/*.yaml")
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
    parser.add_argument(
        "--weights-dir",
        metavar="PLACE",
        help="folder or URI of weights that you have, looked for there first, as search does",
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
    # It says that all is there; it comes back at the end.
    (folder / _README).unlink(missing_ok=True)
    files, encoders = list[Path](), list[Path]()
    if options.only != "wheels":
        spaces = options.space or sorted(_CHECKOUT.glob(_SHIPPED[1]))
        own_weights, _ = fetched(options.weights_dir, "--weights-dir")
        encoders = _gather_weights(folder / "weights", spaces, own_weights, faults)
        files += encoders
    if options.only != "weights":
        files += _gather_wheels(folder, target, faults)
    if files:
        files += _copy_shipped(folder)
        _write_sums(folder, files)
    for fault in faults:
        print(f"failed: {fault}", file=sys.stderr)
    if faults:
        print(
            f"{folder} is not complete; the same command goes on from there, once the "
            f"{'line' if len(faults) == 1 else 'lines'} above {'is' if len(faults) == 1 else 'are'}"
            " seen to",
            file=sys.stderr,
        )
        return cli.SOME_FAILED
    text = _instructions(folder, files, target, len(encoders))
    write_text(folder / _README, text)
    print(text, end="")
    return cli.DONE


def _gather_weights(
    folder: Path, spaces: Sequence[Path], own: Path | None, faults: list[str]
) -> list[Path]:
    """Gather the weights of all encoders that some spaces may want pretrained."""
    encoders: dict[str, None] = {}
    for space in spaces:
        try:
            encoders |= dict.fromkeys(load_space(space, _SEQUENCES).pretrained_encoders())
        except UserError as error:
            faults.append(str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    gathered = []
    with cli.progress("Gathering weights") as show:
        for number, encoder in enumerate(encoders):
            show(number, len(encoders), encoder)
            path = folder / f"{encoder}.safetensors"
            try:
                if path.is_file():
                    find_encoder_weights(encoder, folder)
                else:
                    write_encoder_weights(path, find_encoder_weights(encoder, own))
                gathered.append(path)
            except UserError as error:
                faults.append(str(error))
        show(len(encoders), len(encoders), "")
    return gathered


def _gather_wheels(folder: Path, target: Target, faults: list[str]) -> list[Path]:
    """Gather strokeseg's wheel and all that it needs, and list them for pip."""
    try:
        own = build_wheel(_CHECKOUT, folder / "wheels")
    except UserError as error:
        faults.append(str(error))
        return []
    with cli.progress("Gathering wheels") as show:
        found = gather_wheels(
            own, EXTRAS, _CHECKOUT / "constraints.txt", folder / "wheels", target, show
        )
    faults += found.faults
    lines = []
    for name, path in sorted(found.wheels.items()):
        extras = f"[{','.join(EXTRAS)}]" if name == OWN else ""
        version = path.name.split("-")[1]
        lines.append(f"{name}{extras}=={version} --hash=sha256:{file_sha256(path)}\n")
    write_text(folder / _REQUIREMENTS, "".join(lines))
    return [*found.wheels.values(), folder / _REQUIREMENTS]


def _copy_shipped(folder: Path) -> list[Path]:
    copies = []
    for path in (path for pattern in _SHIPPED for path in sorted(_CHECKOUT.glob(pattern))):
        copy = folder / path.relative_to(_CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(path, copy)))
    return copies


def _write_sums(folder: Path, files: Sequence[Path]) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    lines = (f"{file_sha256(folder / name)}  {name}\n" for name in names)
    write_text(folder / _SUMS, "".join(lines))


def _instructions(folder: Path, files: Sequence[Path], target: Target, encoders: int) -> str:
    size_gb = sum(path.stat().st_size for path in files) / 1e9
    wheels = sum(path.suffix == ".whl" for path in files)
    check = f"sha256sum --check --quiet {_SUMS}"
    run = f"strokeseg run --experiment NAME --data CASES{' --weights-dir weights' * bool(encoders)}"
    lines = [
        f"strokeseg {strokeseg.__version__} for a cluster without a network: "
        f"{count(wheels, 'wheel')}, weights of {count(encoders, 'encoder')}, {size_gb:.2f} GB",
        "Copy this folder to where all nodes see it, and there, in it:",
    ]
    if wheels:
        lines[0] += (
            f"; CPython {target.python}, Linux {target.machine}, glibc 2.{GLIBC_MINOR} or newer"
        )
        check += (
            f" && python{target.python} -m venv venv && venv/bin/pip install --no-index "
            f"--find-links wheels --require-hashes --requirement {_REQUIREMENTS}"
        )
        run = f"venv/bin/{run}"
    return "\n\n".join([*lines, f"    {check}\n    {run}"]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
