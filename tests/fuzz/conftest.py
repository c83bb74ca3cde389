"""The process that untrusted files are tried on, and the good files that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from target_process import Target
from workspace import Workspace

_LINES: list[str] = []


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Start the process; it makes the good files when it starts for the first time."""
    folder = tmp_path_factory.mktemp("fuzz")
    target = Target(folder / "seeds", folder)
    yield target
    _LINES.extend(
        f"{entrance}: {count} inputs, {target.refused[entrance]} refused"
        for entrance, count in sorted(target.tried.items())
    )
    target.close()


@pytest.fixture(scope="session")
def workspace_of(target: Target) -> Callable[[str], Workspace]:
    """Give the workspace of a name."""
    return target.workspace


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were tried."""
    if _LINES:
        terminalreporter.section("untrusted files")
        for line in _LINES:
            terminalreporter.write_line(line)
