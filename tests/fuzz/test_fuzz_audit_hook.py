"""What the fuzzing would see if a command took a harmful file, or else silence proves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_SCRIPT = """
import json, os, pickle, socket, subprocess, sys
from pathlib import Path
from audit_hook import AuditHook
from target import try_on

class Plant:
    def __reduce__(self):
        return os.system, ("touch ran",)

planted = pickle.dumps(Plant())
folder = Path(sys.argv[1]) / "folder"
folder.mkdir()
does = {
    "unpickle": lambda _: pickle.loads(planted),
    "start": lambda _: subprocess.run(["touch", "ran"]),
    "connect": lambda _: socket.create_connection(("127.0.0.1", 9)),
    "write": lambda _: (folder / ".." / "ran").write_text(""),
    "link": lambda _: (folder / ".." / "ran").symlink_to("/etc/passwd"),
    "obey": lambda _: (folder / "inside").write_text(""),
}
print(json.dumps(try_on(does[sys.argv[2]], folder, AuditHook())["violations"]))
"""


@pytest.mark.parametrize("deed", ["unpickle", "start", "connect", "write", "link", "obey"])
def test_offences_are_seen_and_stopped(tmp_path: Path, deed: str) -> None:
    inner = tmp_path / "tmp"
    inner.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path), deed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE), "TMPDIR": str(inner)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bool(json.loads(done.stdout)) == (deed != "obey")
    assert not os.path.lexists(tmp_path / "ran")
