"""Trying many untrusted files on a command, and distinguishing its faults."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from target_process import Target
from workspace import Input, Workspace

# A number, for other inputs than usual.
SEED = os.environ.get("STROKESEG_FUZZ_SEED")
# What share of the inputs is tried; 1 is what docs/reliability.md tells of.
SHARE = float(os.environ.get("STROKESEG_FUZZ_SHARE", "0.2"))
# Where inputs that were not taken as they must be are kept.
KEEP = os.environ.get("STROKESEG_FUZZ_KEEP")


def signature(fault: str) -> str:
    """What two faults of one cause share."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', fault)
    own = [f"{Path(file).name}:{line}" for file, line in frames if "/strokeseg/" in file]
    last = fault.strip().splitlines()[-1]
    kind = re.sub(r"[^A-Za-z ]+.*", "", last)[:60]
    return f"{fault.split(':', 1)[0]} {own[-1] if own else ''} {kind}".strip()


def try_inputs(
    target: Target,
    entrance: str,
    workspace: Workspace,
    inputs: SearchStrategy[Input],
    count: int,
    always: Sequence[Input] = (),
) -> None:
    """Let an entrance take many inputs.

    Args:
        inputs: Where inputs come from; the same ones every time, unless a seed is set.
        count: How many, of which `SHARE` is tried.
        always: Inputs that are tried whatever the share.

    Raises:
        AssertionError: With one fault of each cause, once all inputs have been tried.
    """
    faults: dict[str, tuple[str, Input]] = {}
    tried = 0
    count = max(1, round(count * SHARE))

    def take(given: Input) -> None:
        fault = target.take(entrance, workspace, given)
        if fault is not None:
            cause = signature(fault)
            if cause not in faults or _size(given) < _size(faults[cause][1]):
                faults[cause] = (fault, given)
                _keep(entrance, cause, fault, given)

    @settings(
        max_examples=count,
        derandomize=SEED is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def take_any(given: Input) -> None:
        nonlocal tried
        tried += 1
        take(given)

    for one in always:
        take(one)
    (take_any if SEED is None else seed(int(SEED))(take_any))()
    assert tried >= count * 0.9, f"only {tried} inputs were made"
    reports = [f"{cause}\n  {given.note}\n{fault}" for cause, (fault, given) in faults.items()]
    assert not reports, f"{len(reports)} causes in {tried} inputs\n\n" + "\n\n".join(reports)


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
