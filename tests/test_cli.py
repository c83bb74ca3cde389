"""The console: a bar on a terminal, plain lines elsewhere, one line for an error."""

import os
import pty
import subprocess
import sys

import pytest

from strokeseg import cli
from strokeseg.errors import UserError


def test_a_terminal_shows_a_bar_that_ends_complete(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "strokeseg.phantom", "--output", str(tmp_path / "cases")]
    process = subprocess.Popen(
        [*command, "--cases", "2", "--spacing-mm", "6"], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:
            # Linux reports the end of a terminal whose other side is closed this way.
            break
        if not block:
            break
        shown += block
    assert process.wait() == 0
    assert b"2/2" in shown
    assert b"Traceback" not in shown


def test_plain_progress_prints_the_first_and_the_last_line_only_once_when_it_is_quick(capsys):
    with cli.progress("Slicing") as show:
        for done in (0, 1, 2, 3, 3):
            show(done, 3, "note")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Slicing: 0/3", "Slicing: 3/3"]


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("a.nii: is cut short; fetch it again"), 2, "error: a.nii: is cut short; fetch"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, raised, code, line):
    def work() -> int:
        raise raised

    assert cli.run_command(work) == code
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_anything_else_is_a_bug_and_shows_itself():
    def work() -> int:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        cli.run_command(work)
