"""The process that untrusted files are tried on: it takes one after another, watched and limited.

An *entrance* is a command of strokeseg that a file goes into; `entrances` has them. For every
request, a line of JSON with an entrance and a folder, the answer is a line of JSON with what the
command printed and used. Memory is limited to one GB over what all entrances need for good files.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from audit_hook import AuditHook

GIGABYTE = 1 << 30
_SECONDS_BEFORE_STACKS = 9


def try_on(entrance: Callable[[Path], int], folder: Path, hook: AuditHook) -> dict[str, Any]:
    """Let a command take what is in a folder; return what it printed and used."""
    out, err = io.StringIO(), io.StringIO()
    trace = ""
    code = None
    _forget_peak()
    started = time.perf_counter()
    faulthandler.dump_traceback_later(_SECONDS_BEFORE_STACKS)
    hook.watch(folder, Path(tempfile.gettempdir()))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = entrance(folder)
    except BaseException:
        trace = traceback.format_exc()
    finally:
        hook.rest()
        faulthandler.cancel_dump_traceback_later()
    return {
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "trace": trace,
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(),
        "violations": hook.violations,
    }


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    # What native code prints must not get between the answers.
    os.dup2(2, 1)
    faulthandler.enable()
    from entrances import ENTRANCES  # noqa: PLC0415
    from good_files import warm_up  # noqa: PLC0415

    hook = AuditHook()
    warm_up(Path(sys.argv[1]))
    limit = _status_bytes("VmSize") + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"rests_at": _status_bytes("VmRSS")}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        entrance = ENTRANCES[request["entrance"]]
        answer = try_on(entrance, Path(request["folder"]), hook)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
