"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from strokeseg.errors import UserError
from strokeseg.storage.files import (
    file_sha256,
    read_csv,
    read_json,
    replacing_file,
    replacing_folder,
    values_sha256,
    write_csv,
    write_json,
    write_text,
)


class MishapError(Exception):
    """Something that goes wrong in the middle of writing."""


def test_a_file_appears_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scan.nii.gz"
    with replacing_file(path) as temporary:
        # Writers choose their format by the suffixes.
        assert temporary.suffixes == [".nii", ".gz"] and temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(MishapError), replacing_file(path) as temporary:
        temporary.write_text("half")
        raise MishapError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "prepared"
    path.mkdir()
    (path / "old").write_text("old")
    with replacing_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]
    # Others may read it: a temporary folder is private to begin with.
    assert path.stat().st_mode & 0o777 == 0o755


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "prepared"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(MishapError), replacing_folder(path) as temporary:
        (temporary / "half").write_text("half")
        raise MishapError
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_no_folder_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(MishapError), replacing_folder(tmp_path / "prepared"):
        raise MishapError
    assert not list(tmp_path.iterdir())


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "prepared"
    path.mkdir()
    (path / "old").write_text("old")
    with (
        pytest.raises(UserError, match="prepared: cannot be written"),
        replacing_folder(path) as temporary,
    ):
        shutil.rmtree(temporary)
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_no_file(tmp_path: Path) -> None:
    path = tmp_path / "prepared"
    path.write_text("a file, no folder")
    with pytest.raises(UserError, match="prepared: cannot be written"), replacing_folder(path):
        pass
    assert path.read_text() == "a file, no folder"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_is_not_called_unwritable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing_folder(tmp_path / "prepared"):
        (tmp_path / "source").read_text()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    below = tmp_path / "file" / "a.json"
    with pytest.raises(UserError, match=r"a\.json: cannot be written"):
        write_json(below, {})
    with pytest.raises(UserError, match=r"a\.json: cannot be written"), replacing_folder(below):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_reads_back_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    values = {"name": "Müller", "scores": [0.1, None, True]}
    write_json(path, values)
    assert read_json(path) == values
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"dice": float("nan")})
    assert read_json(path) == values


def test_csv_reads_back_as_text_with_nothing_for_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["case", "note"], [{"case": 1, "note": None}, {"case": 2, "note": 'a,"b"\n'}])
    assert read_csv(path) == [{"case": "1", "note": ""}, {"case": "2", "note": 'a,"b"\n'}]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[" * 100_000])
def test_json_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path)


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.csv: cannot be read"):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    # Files are read in blocks of 2 ** 20 bytes: sizes about one block.
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()


def test_the_hash_of_values_minds_neither_order_nor_kind_of_sequence() -> None:
    assert values_sha256({"a": 1, "b": [2, 3]}) == values_sha256({"b": (2, 3), "a": 1})
    assert values_sha256({"a": 1}) != values_sha256({"a": 2})


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Größe")
    assert (tmp_path / "a").read_bytes() == "Größe".encode()


def test_a_read_only_disk_is_named_and_not_hidden_by_what_cannot_be_removed(tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o ro tmpfs {tmp_path} && {sys.executable} -c '"
        "from pathlib import Path; from strokeseg.storage.files import write_text;"
        f'write_text(Path("{tmp_path}/note"), "")'
        "'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert "StorageError" in done.stderr.splitlines()[-1]
    assert "note: cannot be written (Read-only file system)" in done.stderr.splitlines()[-1]
