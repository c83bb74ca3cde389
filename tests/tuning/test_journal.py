"""Optuna's journal survives whatever ends its writer."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from strokeseg.tuning.journal import mend_journal, open_journal, read_study


def begun(path: Path) -> optuna.Study:
    study = optuna.create_study(
        storage=open_journal(path), study_name="axial", direction="maximize"
    )
    study.tell(study.ask(), 0.5)
    return study


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_torn_last_line_is_cut_off_and_the_rest_goes_on(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "journal.log"
    begun(path)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:kept])
    mend_journal(path)
    assert path.read_bytes() == whole
    study = read_study(path, "axial")
    assert study is not None
    study.tell(study.ask(), 0.6)
    plain = optuna.load_study(
        storage=JournalStorage(JournalFileBackend(str(path))), study_name="axial"
    )
    assert [trial.value for trial in plain.trials] == [0.5, 0.6]


def test_a_torn_line_that_is_not_mended_would_end_the_study(tmp_path: Path) -> None:
    """What `mend_journal` is for: should Optuna mend this itself one day, delete it."""
    path = tmp_path / "journal.log"
    begun(path)
    with path.open("ab") as file:
        file.write(b'{"op_code":')
    study = read_study(path, "axial")
    assert study is not None
    with pytest.raises((ValueError, AttributeError)):
        study.tell(study.ask(), 0.6)
        read_study(path, "axial")


def test_whole_and_empty_journals_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    begun(path)
    whole = path.read_bytes()
    mend_journal(path)
    assert path.read_bytes() == whole
    path.write_bytes(b"")
    mend_journal(path)
    assert path.read_bytes() == b""
    assert read_study(path, "axial") is None


@pytest.mark.parametrize("left", ["journal.log.lock", "journal.log.lock1234.rename"])
@pytest.mark.parametrize("begun_before", [True, False])
def test_the_lock_of_a_driver_that_was_killed_makes_nobody_wait(
    tmp_path: Path, left: str, begun_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.log"
    if begun_before:
        begun(path)
    # Optuna's lock is a link to the journal, which may not be there yet.
    (tmp_path / left).symlink_to(path)
    started = time.monotonic()
    mend_journal(path)
    study = read_study(path, "axial") if begun_before else begun(path)
    assert study is not None
    study.tell(study.ask(), 0.6)
    # Optuna's own patience is 30 s.
    assert time.monotonic() - started < 20
    assert not any(record.levelname == "WARNING" for record in caplog.records)
    assert [found.name for found in tmp_path.iterdir()] == ["journal.log"]
