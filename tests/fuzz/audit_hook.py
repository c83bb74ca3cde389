"""What no file may make a command do, seen before it happens, and refused.

A *violation* is to start a process, unpickle a global, reach out to a network, or write outside the
folders that were given. Python reports each of them before it happens (PEP 578).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

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


class AuditHook:
    """Refuses violations while a file is tried, and records them."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._permitted: tuple[str, ...] | None = None
        sys.addaudithook(self._look)

    def watch(self, *folders: Path) -> None:
        """Permit writing into these folders only, from now on."""
        self.violations = []
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
        self.violations.append(f"{event} {arguments!r:.200}")
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
