"""The process that untrusted files are tried on: it takes one after another, watched and limited.

An *entrance* is a command of strokeseg that a file goes into; `entrances` has them. For every
request, a line of JSON with an entrance and a folder, the answer is a line of JSON with what the
command said. Memory is limited to one GB over what all entrances need for good files. An *offence*
is what no file may make a command do: start a process, unpickle a global, reach out to a network,
or write outside the folder. Python tells of each of them before it happens (PEP 578), and it is
refused.
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

GIGABYTE = 1 << 30
_SECONDS_BEFORE_STACKS = 9
_PROCESSES = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
_NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"}
_CODE = {"pickle.find_class", "ctypes.dlopen", "code.__new__", "marshal.loads"}
# By event, which of its arguments are paths that change, and the folders that these start from.
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Warden:
    """Refuses offences while a file is tried, and takes them down."""

    def __init__(self) -> None:
        self.offences: list[str] = []
        self._permitted: tuple[str, ...] | None = None
        sys.addaudithook(self._look)

    def watch(self, *folders: Path) -> None:
        """Permit writing into these folders only, from now on."""
        self.offences = []
        self._permitted = tuple(os.path.realpath(folder) for folder in folders)

    def rest(self) -> None:
        """Permit everything."""
        self._permitted = None

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._permitted is None:
            return
        if event in _PROCESSES | _NETWORK or (event in _CODE and not _is_import(event)):
            self._refuse(event, arguments)
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._check(event, arguments[0])
        elif event in _CHANGES:
            for path, start in _CHANGES[event]:
                self._check(event, arguments[path], -1 if start is None else arguments[start])

    def _check(self, event: str, path: Any, start: int = -1) -> None:
        if isinstance(path, int) or path == os.devnull:
            return
        folder = "" if start == -1 else f"/proc/self/fd/{start}"
        place = Path(os.path.realpath(os.path.join(folder, os.fsdecode(path))))
        if not any(place.is_relative_to(permitted) for permitted in self._permitted or ()):
            self._refuse(event, (str(place),))

    def _refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.offences.append(f"{event} {arguments!r:.200}")
        raise PermissionError(f"{event} is not permitted here")


def _is_import(event: str) -> bool:
    """Whether a module is being imported: its byte code is read with marshal."""
    if event not in {"marshal.loads", "code.__new__", "ctypes.dlopen"}:
        return False
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def try_on(entrance: Callable[[Path], int], folder: Path, warden: Warden) -> dict[str, Any]:
    """Let a command take what is in a folder; return what it said and what it took."""
    out, err = io.StringIO(), io.StringIO()
    trace = ""
    code = None
    _forget_peak()
    started = time.perf_counter()
    faulthandler.dump_traceback_later(_SECONDS_BEFORE_STACKS)
    warden.watch(folder, Path(tempfile.gettempdir()))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = entrance(folder)
    except BaseException:
        trace = traceback.format_exc()
    finally:
        warden.rest()
        faulthandler.cancel_dump_traceback_later()
    return {
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "trace": trace,
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(),
        "offences": warden.offences,
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

    warden = Warden()
    warm_up(Path(sys.argv[1]))
    limit = _status_bytes("VmSize") + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"rests_at": _status_bytes("VmRSS")}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        entrance = ENTRANCES[request["entrance"]]
        answer = try_on(entrance, Path(request["folder"]), warden)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
