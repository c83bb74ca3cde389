"""What the tests of several layers share: Ray, simulated cases, commands run in process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

# Read when the hub's client is imported: no test may reach the hub, nor live by its cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "strokeseg-tests-no-hub")

import pytest
import ray
from ray.data import DataContext

from strokeseg.imaging.phantoms import SPACINGS_MM, write_phantoms
from strokeseg.tuning.space import Space
from strokeseg.tuning.space_file import load_space


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """The lines of standard error, progress aside, from the error's on."""
        lines = self.err.splitlines()
        starts = [index for index, line in enumerate(lines) if line.startswith("error:")]
        return lines[starts[0] :] if starts else []


Main = Callable[[Sequence[str]], int]
Launch = Callable[..., Outcome]


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Run a command's `main` in this process with its output caught."""

    def run(main: Main, *arguments: object) -> Outcome:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as ending:
                # How argparse leaves.
                assert isinstance(ending.code, int)
                code = ending.code
        return Outcome(code=code, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Start one Ray of two CPUs for all tests; commands join it."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().print_on_execution_start = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six small cases in SISS layout; copy them before damaging any."""
    folder = tmp_path_factory.mktemp("phantoms") / "cases"
    write_phantoms(folder, cases=6, spacing_mm=SPACINGS_MM[1], seed=0)
    return folder


@pytest.fixture(scope="session")
def shipped_space() -> Callable[[Path], Space]:
    """Load a search space that ships, once: each of its encoders is built to check it."""
    return cache(lambda path: load_space(path, channels=4))
