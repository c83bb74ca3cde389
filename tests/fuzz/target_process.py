"""The process of `target`, as tests see it: inputs in, faults out.

A *fault* is a command that took an input otherwise than it must: with success, or with one clear
line that names the file.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from workspace import Input, Workspace

_HERE = Path(__file__).parent
_SECONDS = 10.0
_START_SECONDS = 300.0
_LONGEST_LINE = 4000
_GIGABYTE = 1 << 30
_SOME_FAILED, _MENDABLE = 1, 2
# A setting, or a file, which may lie elsewhere: a manifest names whatever it likes.
_NAMED = re.compile(r"\b(data|splits|preparation|search|ensemble)\.[a-z_]+|: /[^:]+: ")
# After the error, a line a case: its name, and the file or the sequence.
_OF_CASE = re.compile(r"[\w .+-]+: (/|sequence )")


class Target:
    """A process that takes inputs, started again when it dies or hangs.

    Args:
        seeds: Folder of good files, with which it warms up.
        temporary: A folder for what commands write to the temporary place.

    Attributes:
        tried: How many inputs each entrance got.
        refused: How many of them it refused.
    """

    def __init__(self, seeds: Path, temporary: Path) -> None:
        self.tried: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._seeds, self._temporary = seeds, temporary
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        self._rests_at = 0
        self._workspaces: dict[str, Workspace] = {}

    def workspace(self, name: str) -> Workspace:
        """The workspace of a name, with the good files that the process made."""
        self._running()
        if name not in self._workspaces:
            self._workspaces[name] = Workspace(self._seeds / name)
        return self._workspaces[name]

    def take(self, entrance: str, workspace: Workspace, given: Input) -> str | None:
        """Let an entrance take an input; return its fault, or None."""
        process = self._running()
        workspace.lay(given)
        try:
            request = {"entrance": entrance, "folder": str(workspace.folder)}
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = self._answer(_SECONDS)
        except BrokenPipeError:
            answer = None
        finally:
            workspace.clear()
        if answer is None:
            return self._end()
        return self._judge(entrance, workspace, answer)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _judge(self, entrance: str, workspace: Workspace, answer: Mapping[str, Any]) -> str | None:
        self.tried[entrance] += 1
        if answer["violations"]:
            return f"violation: {answer['violations'][0]}"
        if answer["trace"]:
            return f"traceback:\n{answer['trace']}"
        if answer["peak_bytes"] > self._rests_at + _GIGABYTE:
            return (
                f"memory: {(answer['peak_bytes'] - self._rests_at) / 1e9:.1f} GB more than at rest"
            )
        if answer["seconds"] > _SECONDS:
            return f"slow: {answer['seconds']:.1f} s"
        if answer["code"] == 0:
            return None
        self.refused[entrance] += 1
        return _fault_of_refusal(workspace, answer)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._log = (self._temporary / "target.log").open("w+")
            inner = self._temporary / "tmp"
            inner.mkdir(exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, str(_HERE / "target.py"), str(self._seeds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": str(_HERE.parents[1]),
                    "TMPDIR": str(inner),
                    # A thread's arena reserves addresses that are never used.
                    "MALLOC_ARENA_MAX": "2",
                    "OMP_NUM_THREADS": "1",
                    "HF_HUB_OFFLINE": "1",
                },
            )
            ready = self._answer(_START_SECONDS)
            if ready is None:
                raise RuntimeError(f"the target does not start: {self._output()}")
            self._rests_at = ready["rests_at"]
        return self._process

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer

    def _end(self) -> str:
        """End a process that gave no answer; say what it was doing."""
        assert self._process is not None
        died = self._process.poll()
        self.close()
        what = "hang" if died is None else f"death by {died}"
        return f"{what}:\n{self._output()}"

    def _output(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        return self._log.read()[-4000:]


def _fault_of_refusal(workspace: Workspace, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with how a command refused an input, or None."""
    lines = [line for line in answer["err"].splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error: ", "failed: "))]
    if answer["code"] not in (_SOME_FAILED, _MENDABLE) or not errors:
        return f"code {answer['code']} without a word: {answer['err'][-300:]}"
    if lines[-1] not in errors and not _OF_CASE.match(lines[-1]):
        return f"more than a line: {answer['err'][-500:]}"
    if longest := max((line for line in lines if len(line) > _LONGEST_LINE), default=None):
        return f"line too long: {len(longest)} characters, {longest[:200]}"
    if str(workspace.folder) not in answer["err"] and not _NAMED.search(answer["err"]):
        return f"no file or setting named: {answer['err'][-300:]}"
    return None
