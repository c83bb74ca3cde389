"""The process that untrusted files are tried on, and the good files that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from bench import Bench
from victim_process import Victim

_LINES: list[str] = []


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Start the process; it makes the good files when it starts for the first time."""
    folder = tmp_path_factory.mktemp("fuzz")
    victim = Victim(folder / "seeds", folder)
    yield victim
    _LINES.extend(
        f"{entrance}: {count} inputs, {victim.refused[entrance]} refused"
        for entrance, count in sorted(victim.tried.items())
    )
    victim.close()


@pytest.fixture(scope="session")
def bench_of(victim: Victim) -> Callable[[str], Bench]:
    """Give the bench of a name."""
    return victim.bench


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were tried."""
    if _LINES:
        terminalreporter.section("untrusted files")
        for line in _LINES:
            terminalreporter.write_line(line)
