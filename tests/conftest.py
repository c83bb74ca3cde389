"""What the tests of several layers share: Ray, simulated cases, commands run in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

# Read when the hub's client is imported: no test may reach the hub, nor live by its cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "strokeseg-tests-no-hub")

import pytest
import ray
from plants import write_planted_cases
from ray.data import DataContext
from tiny_experiment import Place, write_experiment

import strokeseg.run
from strokeseg.ensemble.bundle import write_bundle
from strokeseg.exporting.onnx_export import onnx_bytes
from strokeseg.imaging.slices import AXES
from strokeseg.phantoms.dataset import SPACINGS_MM, write_phantoms
from strokeseg.process.temporary_folder import temporary_folder
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.records.ensemble import EnsembleRecord, write_ensemble
from strokeseg.records.member import MemberRecord
from strokeseg.training.checkpoint import load_member, save_member
from strokeseg.training.encoders import check_encoders
from strokeseg.training.network import build_network
from strokeseg.tuning.space import Space
from strokeseg.tuning.space_file import load_space

# With and without pretrained weights, of which the environment has one encoder's.
_TRANSFER_SPACE = """\
first:
  - {encoder: resnet18, learning_rate: 3.0e-3}
  - {encoder: tu-tf_efficientnet_lite0, pretrained: true, learning_rate: 3.0e-3}
parameters:
  encoder: {choices: [resnet18, tu-tf_efficientnet_lite0]}
  encoder_depth: {value: 3}
  pretrained: {choices: [true, false], when: {encoder: [tu-tf_efficientnet_lite0]}}
  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
  batch_size: {value: 16}
"""
_SEQUENCES = ("T1", "T2", "DWI", "FLAIR")


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


_LONG_SECONDS = 60
_SLOW_TIMEOUT_SECONDS = 1200


class _Log:
    """Says at once what failed or took long: a run that is cut off says nothing at its end."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._begun = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed and report.duration < _LONG_SECONDS:
            return
        reasons = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        minutes = (time.monotonic() - self._begun) / 60
        self._reporter.ensure_newline()
        self._reporter.write_line(
            f"{minutes:.0f} min: {report.nodeid} {report.when} {report.outcome} after "
            f"{report.duration:.0f} s {' | '.join(reasons[:3])}"
        )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        config.pluginmanager.register(_Log(reporter))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # With several test processes, whoever needs one fixture shares one of them.
        shared = _SHARED.intersection(getattr(item, "fixturenames", ()))
        group = min(shared) if shared else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_TIMEOUT_SECONDS))


_SHARED = {"finished", "target"}

pytest_plugins = ["toy_members"]

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
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().print_on_execution_start = False
    yield
    ray.shutdown()


@pytest.fixture
def said_in_own_ray() -> Callable[[str], Any]:
    """Run a script that starts a Ray in the folder it is given; return what JSON it prints last."""

    def run(script: str) -> Any:
        # Ray's sockets need short names.
        with temporary_folder(Path("/tmp"), "sso-") as folder:
            done = subprocess.run(
                [sys.executable, "-c", script, str(folder)],
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[1],
                env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
                timeout=240,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six small cases in SISS layout; copy them before damaging any."""
    folder = tmp_path_factory.mktemp("phantoms") / "cases"
    write_phantoms(folder, cases=6, spacing_mm=SPACINGS_MM[1], seed=0)
    return folder


@pytest.fixture(scope="session")
def finished(
    phantom_cases: Path,
    tmp_path_factory: pytest.TempPathFactory,
    launch: Launch,
    local_ray: None,
) -> Place:
    """The tiny experiment, run as a whole on planted scans; read it, and copy what you change."""
    folder = tmp_path_factory.mktemp("finished")
    cases = write_planted_cases(folder, phantom_cases)
    place = Place(
        config=write_experiment(folder, space=_TRANSFER_SPACE, data=cases),
        storage=folder / "runs",
        cases=cases,
    )
    outcome = launch(strokeseg.run.main, *place.options, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    return replace(place, output=outcome.out)


@pytest.fixture(scope="session")
def shipped_space() -> Callable[[Path], Space]:
    """Load a search space that ships, once: each of its encoders is built to check it."""
    return cache(_checked_space)


def _checked_space(path: Path) -> Space:
    space = load_space(path)
    check_encoders(space.wanted_encoders(path, 4, None))
    return space


@pytest.fixture(scope="session")
def write_untrained_bundle() -> Callable[..., Path]:
    """Write a bundle of networks that know nothing; equal seeds give equal ones."""
    return _write_untrained_bundle


def _write_untrained_bundle(folder: Path, seed: int = 0) -> Path:
    """Write a bundle of one random network an axis, `<axis>-0000`, and return its .zip."""
    files = {}
    for axis in AXES:
        path = folder / f"{axis}-0000.safetensors"
        record = MemberRecord(
            axis=axis,
            trial=0,
            config=TrialConfig(encoder="resnet18", encoder_depth=3),
            channels=_SEQUENCES,
            dice=0.5,
            epoch=1,
            preparation_hash="abc",
            code_version="1",
        )
        network = build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=4, seed=seed
        )
        save_member(path, network, record)
        files[path.name] = path
    ensemble = EnsembleRecord(
        name="random",
        sequences=_SEQUENCES,
        members={name.split("-")[0]: (name,) for name in files},
        preparation_hash="abc",
        code_version="1",
    )
    write_ensemble(folder / "ensemble", ensemble, files)
    onnx_files = {name: onnx_bytes(load_member(path)) for name, path in files.items()}
    path = folder / "bundle.zip"
    write_bundle(path, folder / "ensemble", onnx_files=onnx_files, extra={"LICENSE": "none"})
    return path
