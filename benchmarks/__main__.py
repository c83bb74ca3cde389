"""Measure what the project claims, side by side with others, and write RESULTS.md.

Each part is a module of its own and can be run alone; here the parts named are run, all of them
by default, and their results are kept in results.json beside those of parts that were run
before. RESULTS.md is made from results.json alone.

python -m benchmarks
python -m benchmarks plain nnunet_prepare
python -m benchmarks --quick --output /tmp/results
python -m benchmarks --only-write
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.part import add_options, parse_options, tell
from benchmarks.report import render
from benchmarks.results import Measured, read_results, write_results
from benchmarks.setting import find_setting
from strokeseg.records.experiment import code_version
from strokeseg.storage.files import write_text

# In the order of RESULTS.md. A part is a module here with `run(options) -> PartResult`.
PARTS = ("feed_peers", "step", "plain", "nnunet_prepare", "metrics", "memory")
HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    parser.add_argument(
        "--only-write", action="store_true", help="measure nothing; write RESULTS.md again"
    )
    add_options(parser)
    options, given = parse_options(parser)
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"parts must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    results_json = given.output / "results.json"
    failed: list[str] = []
    for name in [] if given.only_write else given.parts or PARTS:
        tell(f"{name} ...")
        load, started, date = os.getloadavg(), time.perf_counter(), datetime.now(UTC)
        try:
            result = import_module(f"benchmarks.{name}").run(options)
        except RuntimeError as error:
            # The other parts are worth having; this one's last results stay.
            failed.append(name)
            tell(f"{name} failed: {error}")
            continue
        measured = Measured(
            result=result,
            setting=find_setting(options.peers),
            commit=code_version(),
            date=f"{date:%Y-%m-%d %H:%M}",
            load=load,
            seconds=time.perf_counter() - started,
            quick=options.quick,
        )
        # Read again, since another process may have measured another part meanwhile.
        known = {**read_results(results_json), name: measured}
        write_results(results_json, {part: known[part] for part in PARTS if part in known})
    results_md = given.output / "RESULTS.md"
    write_text(results_md, render(read_results(results_json)))
    print(results_md)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their results are those of an earlier run, if any")


if __name__ == "__main__":
    main()
