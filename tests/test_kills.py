"""`kill -9` at any point of a command that writes results: the next one gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from tiny_experiment import Place

# How often each command; docs/reliability.md says what more than these have found.
KILLS = int(os.environ.get("STROKESEG_KILLS", "1"))
# After the first file that it writes.
MOST_SECONDS = 3.0
SEED = os.environ.get("STROKESEG_KILLS_SEED", "")
# What a command makes, under the experiment's folder.
MAKES = {
    "prepare": ("prepared",),
    "promote": ("ensemble-candidates", "ensemble"),
    "evaluate": ("evaluation",),
    "report": ("report",),
    "export": ("bundle.zip",),
}


@pytest.fixture(scope="module")
def copied(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished.copy(tmp_path_factory.mktemp("kills"))


def _files(place: Place, names: tuple[str, ...]) -> dict[str, str]:
    """All files below, hidden ones too, and what is in them."""
    found = {}
    for name in names:
        path = place.folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                found[str(file.relative_to(place.folder))] = digest
    return found


def _remove(place: Place, names: tuple[str, ...]) -> None:
    for name in names:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _begin(command: str, place: Place) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"strokeseg.{command}", *place.options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.slow
@pytest.mark.timeout(1200 + 90 * KILLS)
@pytest.mark.parametrize("command", MAKES)
def test_the_next_run_gives_the_same_bytes(
    command: str, copied: Place, launch: Callable[..., Any]
) -> None:
    makes = MAKES[command]
    main = import_module(f"strokeseg.{command}").main
    before = _files(copied, makes)
    assert {name.split("/")[0] for name in before} >= {makes[-1]}
    if command == "report":
        # It names the command that made it.
        assert launch(main, *copied.options).code == 0
    undisturbed = _files(copied, makes)

    draw = random.Random(command + SEED)
    killed = 0
    for number in range(KILLS):
        _remove(copied, makes)
        left = set(copied.folder.iterdir())
        process = _begin(command, copied)
        while process.poll() is None and set(copied.folder.iterdir()) == left:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, MOST_SECONDS))
        if process.poll() is None:
            killed += 1
            # The command alone, or as in a power cut all that it started and can be reached.
            if draw.random() < 0.5:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        outcome = launch(main, *copied.options)
        assert outcome.code == 0, outcome.err
        assert _files(copied, makes) == undisturbed, (number, outcome.out)
    assert killed or KILLS < 10
    print(f"{command}: {killed} of {KILLS} came while it worked")
