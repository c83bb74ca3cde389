"""Trying untrusted files on strokeseg's commands: inputs in, faults out.

An *input* is some files, by their names in a bench, and a note of what was done to them. A
*bench* is a folder in which a command finds all it needs, all of it good, until an input's files
take the place of the good ones. A *fault* is a command that took an input otherwise than it must:
with success, or with one clear line that names the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

HERE = Path(__file__).parent
# More inputs than usual, and other ones.
TIMES = float(os.environ.get("STROKESEG_FUZZ_TIMES", "1"))
SEED = os.environ.get("STROKESEG_FUZZ_SEED")
# Where inputs that were not taken as they must be are kept.
KEEP = os.environ.get("STROKESEG_FUZZ_KEEP")

_SECONDS = 10.0
_START_SECONDS = 120.0
_LONGEST_LINE = 4000
_GIGABYTE = 1 << 30
_SOME_FAILED, _MENDABLE = 1, 2
_SETTING = re.compile(r"\b(data|splits|preparation|search|ensemble)\.[a-z_]+")


@dataclass(frozen=True, kw_only=True)
class Input:
    """Files to try.

    Attributes:
        files: Content by name; nothing for a file that is missing.
        note: What was done to them.
    """

    files: Mapping[str, bytes | None]
    note: str


class Bench:
    """A folder of good files for one entrance.

    Args:
        folder: Where the good files lie; what an input or a command changes is undone after it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self._good = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._times = {name: self._time(name) for name in self._good}

    @property
    def names(self) -> list[str]:
        """Names of all good files."""
        return list(self._good)

    def good(self, name: str) -> bytes:
        """The content of a good file."""
        return self._good[name]

    def lay(self, given: Input) -> None:
        """Put an input's files in the place of the good ones."""
        for name, content in given.files.items():
            path = self.folder / name
            path.unlink(missing_ok=True)
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def clear(self) -> None:
        """Bring the good files back, and remove all others."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink() or (path.is_file() and name not in self._good):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for name, content in self._good.items():
            path = self.folder / name
            if not path.is_file() or self._time(name) != self._times[name]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._times[name] = self._time(name)

    def _time(self, name: str) -> int:
        return (self.folder / name).stat().st_mtime_ns


@dataclass
class Tally:
    """How inputs were taken, by kind: how many were done, refused, and done in part."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Victim:
    """A process that takes inputs, started again when it dies or hangs.

    Args:
        seeds: Folder of good files, with which it warms up.
        temporary: A folder for what commands write to the temporary place.
    """

    def __init__(self, seeds: Path, temporary: Path) -> None:
        self.tally = Tally()
        self._seeds, self._temporary = seeds, temporary
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        self._rests_at = 0
        self._benches: dict[str, Bench] = {}

    def bench(self, name: str) -> Bench:
        """The bench of a name, with the good files that the process made."""
        self._running()
        if name not in self._benches:
            self._benches[name] = Bench(self._seeds / name)
        return self._benches[name]

    def take(self, entrance: str, bench: Bench, given: Input) -> str | None:
        """Let an entrance take an input; return its fault, or nothing."""
        process = self._running()
        bench.lay(given)
        try:
            request = {"entrance": entrance, "folder": str(bench.folder)}
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = self._answer(_SECONDS)
        except BrokenPipeError:
            answer = None
        finally:
            bench.clear()
        if answer is None:
            return self._end()
        return self._judge(entrance, bench, answer)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _judge(self, entrance: str, bench: Bench, answer: Mapping[str, Any]) -> str | None:
        self.tally.tried[entrance] += 1
        if answer["offences"]:
            return f"offence: {answer['offences'][0]}"
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
        self.tally.refused[entrance] += 1
        return _fault_of_refusal(bench, answer)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._log = (self._temporary / "victim.log").open("w+")
            inner = self._temporary / "tmp"
            inner.mkdir(exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "victim.py"), str(self._seeds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": str(HERE.parents[1]),
                    "TMPDIR": str(inner),
                    # A thread's arena reserves addresses that are never used.
                    "MALLOC_ARENA_MAX": "2",
                    "OMP_NUM_THREADS": "1",
                    "HF_HUB_OFFLINE": "1",
                },
            )
            ready = self._answer(_START_SECONDS)
            if ready is None:
                raise RuntimeError(f"the victim does not start: {self._said()}")
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
        return f"{what}:\n{self._said()}"

    def _said(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        return self._log.read()[-4000:]


def _fault_of_refusal(bench: Bench, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with how a command refused an input, or nothing."""
    lines = [line for line in answer["err"].splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("error: ", "failed: "))]
    if answer["code"] not in (_SOME_FAILED, _MENDABLE) or not told:
        return f"code {answer['code']} without a word: {answer['err'][-300:]}"
    # After the error, a line a case, which begins with the case's name.
    of_cases = [line for line in lines if str(bench.folder) in line]
    if lines[-1] not in (*told, *of_cases):
        return f"more than a line: {answer['err'][-500:]}"
    if longest := max((line for line in lines if len(line) > _LONGEST_LINE), default=None):
        return f"line too long: {len(longest)} characters, {longest[:200]}"
    if str(bench.folder) not in answer["err"] and not _SETTING.search(answer["err"]):
        return f"no file or setting named: {answer['err'][-300:]}"
    return None


def signature(fault: str) -> str:
    """What two faults of one cause share."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', fault)
    own = [f"{Path(file).name}:{line}" for file, line in frames if "/strokeseg/" in file]
    last = fault.strip().splitlines()[-1]
    kind = re.sub(r"[^A-Za-z ]+.*", "", last)[:60]
    return f"{fault.split(':', 1)[0]} {own[-1] if own else ''} {kind}".strip()


def try_inputs(
    victim: Victim, entrance: str, bench: Bench, inputs: SearchStrategy[Input], count: int
) -> None:
    """Let an entrance take many inputs.

    Args:
        victim: Takes them.
        entrance: Which.
        bench: Its good files.
        inputs: Where inputs come from; the same ones every time, unless a seed is set.
        count: How many.

    Raises:
        AssertionError: With one fault of each cause, once all inputs have been tried.
    """
    faults: dict[str, tuple[str, Input]] = {}
    tried = 0

    @settings(
        max_examples=max(1, round(count * TIMES)),
        derandomize=SEED is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def take(given: Input) -> None:
        nonlocal tried
        tried += 1
        fault = victim.take(entrance, bench, given)
        if fault is not None:
            cause = signature(fault)
            if cause not in faults or _size(given) < _size(faults[cause][1]):
                faults[cause] = (fault, given)
                _keep(entrance, cause, fault, given)

    (take if SEED is None else seed(int(SEED))(take))()
    assert tried >= round(count * TIMES) * 0.9, f"only {tried} inputs were made"
    told = [f"{cause}\n  {given.note}\n{fault}" for cause, (fault, given) in faults.items()]
    assert not told, f"{len(told)} causes in {tried} inputs\n\n" + "\n\n".join(told)


def _size(given: Input) -> int:
    return sum(len(content or b"") for content in given.files.values())


def _keep(entrance: str, cause: str, fault: str, given: Input) -> None:
    if KEEP is None:
        return
    digest = hashlib.sha256(cause.encode()).hexdigest()[:8]
    folder = Path(KEEP) / f"{entrance}-{digest}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "FAULT.txt").write_text(f"{cause}\n{given.note}\n{fault}\n")
    for name, content in given.files.items():
        if content is not None:
            (folder / Path(name).name).write_bytes(content)
