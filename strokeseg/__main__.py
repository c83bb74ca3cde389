"""`strokeseg <command>`: the same as `python -m strokeseg.<command>`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import strokeseg
from strokeseg.process.interrupts import Stopped, heeding_interrupts

COMMANDS = {
    "phantom": "simulate cases in the layout of ISLES 2015 SISS",
    "prepare": "check cases, split them by patient, slice them into Parquet",
    "search": "search hyperparameters along one axis or several",
    "measure-leakage": "measure what a split by slice would have reported",
    "promote": "make the best trials of the axes an ensemble",
    "evaluate": "score the ensemble on the locked test cases in 3D",
    "report": "write what was searched and scored as a page, and as Markdown",
    "export": "write the ensemble as one portable bundle",
    "predict": "segment new cases with a bundle",
    "run": "prepare to export, in order, for all axes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(strokeseg.__version__)
        return 0
    if not given or given[0] in {"-h", "--help"}:
        print("usage: strokeseg <command> [options]\n")
        print("\n".join(f"  {name:<17}{purpose}" for name, purpose in COMMANDS.items()))
        print("\nstrokeseg <command> --help tells more.")
        return 0
    command, *rest = given
    if command not in COMMANDS:
        print(f"error: no command {command!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        with heeding_interrupts():
            # Imported only now: torch and Ray take seconds that --help need not wait for.
            code: int = importlib.import_module(f"strokeseg.{command.replace('-', '_')}").main(rest)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.code
    return code


if __name__ == "__main__":
    sys.exit(main())
