"""The bundle as untrusted input."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from strokeseg.errors import UserError
from strokeseg.learning.bundle import open_bundle, write_bundle
from strokeseg.learning.ensemble import load_ensemble

_EXTRA: dict[str, str | bytes] = {"LICENSE": "free", "docs/README.md": b"# Toy\n"}
_MODEL = "models/axial-0.safetensors"
_NAMES = {
    "LICENSE",
    "checksums.json",
    "configs/ensemble.json",
    "configs/metadata.json",
    "docs/README.md",
    "models/axial-0.safetensors",
    "models/coronal-1.safetensors",
    "models/sagittal-2.safetensors",
}


@pytest.fixture(params=["bundle.zip", "bundle"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path, ensemble_folder: Path) -> Path:
    path = tmp_path / str(request.param)
    write_bundle(path, ensemble_folder, extra=_EXTRA)
    return path


def test_a_bundle_gives_the_ensemble_back(bundle: Path, ensemble_folder: Path) -> None:
    opened, original = open_bundle(bundle), load_ensemble(ensemble_folder)
    assert opened.record == original.record.model_copy(update={"comparison": {}})
    for axis, members in original.members.items():
        given = opened.members[axis][0]
        assert given.record == members[0].record
        for key, tensor in members[0].network.state_dict().items():
            assert torch.equal(given.network.state_dict()[key], tensor)


def test_a_bundle_holds_what_it_says_and_no_comparison(bundle: Path) -> None:
    contents = _read(bundle)
    assert contents.keys() == _NAMES
    listed = json.loads(contents["checksums.json"])["files"]
    assert listed.keys() == _NAMES - {"checksums.json"}
    for name, entry in listed.items():
        assert entry["bytes"] == len(contents[name])
        assert entry["sha256"] == hashlib.sha256(contents[name]).hexdigest()
    assert json.loads(contents["configs/metadata.json"])["name"] == "toy"


def test_equal_ensembles_give_equal_bytes(tmp_path: Path, ensemble_folder: Path) -> None:
    first, again = tmp_path / "first.zip", tmp_path / "again.zip"
    write_bundle(first, ensemble_folder, extra=_EXTRA)
    write_bundle(again, ensemble_folder, extra=dict(reversed(_EXTRA.items())))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "checksums.json", "configs/metadata.json"]
)
def test_extra_files_need_a_free_and_relative_name(
    tmp_path: Path, ensemble_folder: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="free and relative name"):
        write_bundle(tmp_path / "bundle.zip", ensemble_folder, extra={name: "x"})


def _read(bundle: Path) -> dict[str, bytes]:
    if bundle.is_dir():
        return {
            file.relative_to(bundle).as_posix(): file.read_bytes()
            for file in bundle.rglob("*")
            if file.is_file()
        }
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(bundle: Path, contents: dict[str, bytes]) -> None:
    """Write contents as they are, checksums and all."""
    if bundle.is_dir():
        for file in [file for file in bundle.rglob("*") if file.is_file()]:
            file.unlink()
        for name, content in contents.items():
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            (bundle / name).write_bytes(content)
        return
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def _sign(contents: dict[str, bytes]) -> None:
    """Make the checksums fit what is there."""
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
        if name != "checksums.json"
    }
    contents["checksums.json"] = json.dumps({"files": listed}).encode()


def _change_byte(contents: dict[str, bytes]) -> None:
    content = bytearray(contents[_MODEL])
    content[-1] ^= 1
    contents[_MODEL] = bytes(content)


def _shorten(contents: dict[str, bytes]) -> None:
    contents[_MODEL] = contents[_MODEL][:-8]


def _remove(contents: dict[str, bytes]) -> None:
    del contents[_MODEL]


def _add(contents: dict[str, bytes]) -> None:
    contents["models/more.pkl"] = b"x"


def _remove_checksums(contents: dict[str, bytes]) -> None:
    del contents["checksums.json"]


def _spoil_checksums(contents: dict[str, bytes]) -> None:
    contents["checksums.json"] = b"[" * 100_000


def _grow_checksums(contents: dict[str, bytes]) -> None:
    contents["checksums.json"] += b" " * (1 << 20)


def _list_traversal(contents: dict[str, bytes]) -> None:
    listed = json.loads(contents["checksums.json"])
    listed["files"]["../../escaped"] = listed["files"][_MODEL]
    contents["checksums.json"] = json.dumps(listed).encode()


def _spoil_member(contents: dict[str, bytes]) -> None:
    contents[_MODEL] = contents["models/coronal-1.safetensors"]
    _sign(contents)


def _remove_member_and_sign(contents: dict[str, bytes]) -> None:
    del contents[_MODEL]
    _sign(contents)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_change_byte, f"{_MODEL} was changed"),
        (_shorten, f"{_MODEL} was changed"),
        (_remove, f"but {_MODEL} missing"),
        (_add, r"models/more\.pkl in excess"),
        (_remove_checksums, r"no proper checksums\.json"),
        (_spoil_checksums, "no valid JSON"),
        (_grow_checksums, r"no proper checksums\.json"),
        (_list_traversal, "names must be relative"),
        (_spoil_member, "must be a member for axis"),
        (_remove_member_and_sign, "no readable member"),
    ],
)
def test_tampered_bundles_are_refused_by_name(
    bundle: Path, tamper: Callable[[dict[str, bytes]], None], words: str
) -> None:
    contents = _read(bundle)
    tamper(contents)
    _write(bundle, contents)
    with pytest.raises(UserError, match=words) as caught:
        open_bundle(bundle)
    assert str(caught.value).startswith(str(bundle))
    assert "\n" not in str(caught.value)


def _zip(tmp_path: Path, ensemble_folder: Path) -> tuple[Path, dict[str, bytes]]:
    path = tmp_path / "bundle.zip"
    write_bundle(path, ensemble_folder, extra=_EXTRA)
    return path, _read(path)


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a\\..\\b", "C:escaped", "a//b", "a/"])
def test_names_that_leave_the_bundle_are_refused(
    tmp_path: Path, ensemble_folder: Path, name: str
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder)
    contents[name] = b"x"
    _sign(contents)
    _write(path, contents)
    with pytest.raises(UserError, match="names must be relative"):
        open_bundle(path)
    assert not (tmp_path.parent / "escaped").exists()


def test_a_changed_byte_on_disk_is_found(tmp_path: Path, ensemble_folder: Path) -> None:
    path, contents = _zip(tmp_path, ensemble_folder)
    content = bytearray(path.read_bytes())
    content[content.index(contents[_MODEL]) + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{_MODEL} was changed"):
        open_bundle(path)


@pytest.mark.parametrize("keep", [0, 10, 100_000])
def test_a_truncated_zip_is_refused(tmp_path: Path, ensemble_folder: Path, keep: int) -> None:
    path, _ = _zip(tmp_path, ensemble_folder)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        open_bundle(path)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        open_bundle(tmp_path / "none.zip")


def test_compressed_entries_are_refused_before_they_unfold(
    tmp_path: Path, ensemble_folder: Path
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder)
    contents["models/zeros.safetensors"] = bytes(50_000_000)
    _sign(contents)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is compressed"):
        open_bundle(path)


def test_links_are_refused(tmp_path: Path, ensemble_folder: Path) -> None:
    path, contents = _zip(tmp_path, ensemble_folder)
    link = zipfile.ZipInfo("models/link.safetensors")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="must hold plain files"):
        open_bundle(path)
    folder = tmp_path / "bundle"
    write_bundle(folder, ensemble_folder, extra=_EXTRA)
    (folder / _MODEL).unlink()
    target = tmp_path / "target.safetensors"
    target.write_bytes(contents[_MODEL])
    (folder / _MODEL).symlink_to(target)
    with pytest.raises(UserError, match="must hold no links"):
        open_bundle(folder)


def test_a_name_given_twice_is_refused(tmp_path: Path, ensemble_folder: Path) -> None:
    path, _ = _zip(tmp_path, ensemble_folder)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("LICENSE", "other")
    with pytest.raises(UserError, match="names must be relative and differ"):
        open_bundle(path)
