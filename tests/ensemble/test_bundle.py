"""The bundle as untrusted input."""

from __future__ import annotations

import hashlib
import json
import random
import stat
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from strokeseg.ensemble.bundle import check_place, open_bundle, write_bundle
from strokeseg.ensemble.torch_predictor import load_ensemble
from strokeseg.ensemble.vote import Ensemble
from strokeseg.errors import UserError
from strokeseg.storage.files import file_sha256, read_json, write_json

_EXTRA: dict[str, str | bytes] = {"LICENSE": "free", "docs/README.md": b"# Toy\n"}
_MODEL = "models/axial-0.safetensors"
_MEMBERS = ("axial-0", "coronal-1", "sagittal-2")
_NAMES = {
    "LICENSE",
    "checksums.json",
    "configs/ensemble.json",
    "docs/README.md",
    *(f"models/{member}{ending}" for member in _MEMBERS for ending in (".safetensors", ".onnx")),
}


@pytest.fixture(params=["bundle.zip", "bundle"])
def bundle(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ensemble_folder: Path,
    onnx_files: dict[str, bytes],
) -> Path:
    path = tmp_path / str(request.param)
    write_bundle(path, ensemble_folder, onnx_files=onnx_files, extra=_EXTRA)
    return path


def test_a_bundle_gives_the_ensemble_back(bundle: Path, ensemble_folder: Path) -> None:
    opened, original = open_bundle(bundle, "torch", "cpu"), load_ensemble(ensemble_folder)
    assert opened.record == original.record.model_copy(update={"comparison": {}})
    images = np.random.default_rng(0).normal(size=(2, 2, 32, 64)).astype(np.float32)
    for given, predictor in zip(opened.predictors, original.predictors, strict=True):
        assert (given.name, given.axis) == (predictor.name, predictor.axis)
        np.testing.assert_array_equal(given.predict(images), predictor.predict(images))


def test_a_bundle_takes_the_place_of_a_bundle_alone(tmp_path: Path) -> None:
    place = tmp_path / "models"
    place.mkdir()
    check_place(place)
    (place / "last-year.zip").write_bytes(b"precious")
    with pytest.raises(UserError, match=f"{place}: holds other files"):
        check_place(place)
    with pytest.raises(UserError, match=f"{place}: holds other files"):
        write_bundle(place, tmp_path, onnx_files={}, extra={})
    check_place(place / "bundle.ZIP")
    (place / "checksums.json").touch()
    check_place(place)


def test_a_bundle_holds_what_it_says_and_no_comparison(bundle: Path) -> None:
    contents = _read(bundle)
    assert contents.keys() == _NAMES
    listed = json.loads(contents["checksums.json"])["files"]
    assert listed.keys() == _NAMES - {"checksums.json"}
    for name, entry in listed.items():
        assert entry["bytes"] == len(contents[name])
        assert entry["sha256"] == hashlib.sha256(contents[name]).hexdigest()


def test_a_bundle_keeps_the_hashes_of_its_own_members(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    members = ensemble_folder / "members"
    (members / "axial-0.safetensors").rename(members / "axial-9.safetensors")
    record = read_json(ensemble_folder / "ensemble.json")
    del record["members"]["axial"]
    record["comparison"]["scratch"]["axial"] = ["axial-9.safetensors"]
    record["sha256"]["axial-9.safetensors"] = record["sha256"].pop("axial-0.safetensors")
    write_json(ensemble_folder / "ensemble.json", record)
    own = {name: onnx_files[name] for name in ("coronal-1.safetensors", "sagittal-2.safetensors")}
    write_bundle(tmp_path / "bundle.zip", ensemble_folder, onnx_files=own, extra={})
    assert open_bundle(tmp_path / "bundle.zip").record.sha256 == {
        name: file_sha256(members / name)
        for name in ("coronal-1.safetensors", "sagittal-2.safetensors")
    }


def test_a_member_changed_after_promotion_is_not_exported(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    with (ensemble_folder / "members/axial-0.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"axial-0\.safetensors: was changed after"):
        write_bundle(tmp_path / "bundle.zip", ensemble_folder, onnx_files=onnx_files, extra={})
    assert not (tmp_path / "bundle.zip").exists()


def test_equal_ensembles_give_equal_bytes(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    first, again = tmp_path / "first.zip", tmp_path / "again.zip"
    write_bundle(first, ensemble_folder, onnx_files=onnx_files, extra=_EXTRA)
    write_bundle(
        again, ensemble_folder, onnx_files=onnx_files, extra=dict(reversed(_EXTRA.items()))
    )
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "checksums.json", "configs/ensemble.json"]
)
def test_extra_files_need_a_free_and_relative_name(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes], name: str
) -> None:
    with pytest.raises(ValueError, match="free and relative name"):
        write_bundle(
            tmp_path / "bundle.zip", ensemble_folder, onnx_files=onnx_files, extra={name: "x"}
        )


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
    contents["checksums.json"] = json.dumps({"format": 2, "files": listed}).encode()


def _change_checksums(contents: dict[str, bytes], **changes: object) -> None:
    contents["checksums.json"] = json.dumps(
        json.loads(contents["checksums.json"]) | changes
    ).encode()


def _other_format(contents: dict[str, bytes]) -> None:
    # All else may be new in another format.
    _change_checksums(contents, format=3, files=[], more="new")


def _no_format(contents: dict[str, bytes]) -> None:
    _change_checksums(contents, format=None)


def _no_object(contents: dict[str, bytes]) -> None:
    contents["checksums.json"] = b"[1]"


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


def _swap_members_and_sign(contents: dict[str, bytes]) -> None:
    contents[_MODEL] = contents["models/coronal-1.safetensors"]
    _sign(contents)


def _change_record(contents: dict[str, bytes], **changes: object) -> None:
    record = json.loads(contents["configs/ensemble.json"]) | changes
    contents["configs/ensemble.json"] = json.dumps(record).encode()
    _sign(contents)


def _other_axis(contents: dict[str, bytes]) -> None:
    contents[_MODEL] = contents["models/coronal-1.safetensors"]
    sha256 = json.loads(contents["configs/ensemble.json"])["sha256"]
    sha256["axial-0.safetensors"] = sha256["coronal-1.safetensors"]
    _change_record(contents, sha256=sha256)


def _tiny_voxels(contents: dict[str, bytes]) -> None:
    _change_record(contents, spacing_mm=[0.001, 0.001, 0.001])


def _nest_record(contents: dict[str, bytes]) -> None:
    contents["configs/ensemble.json"] = b"[" * 100_000
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
        (_other_format, r"another version of strokeseg \(format 3, this one reads 2\)"),
        (_no_format, "tells no format"),
        (_no_object, "tells no format"),
        (_swap_members_and_sign, r"axial-0\.safetensors: was changed after"),
        (_other_axis, "must be a member for axis"),
        (_tiny_voxels, r"spacing_mm\.0"),
        (_nest_record, "no valid JSON"),
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


def _zip(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> tuple[Path, dict[str, bytes]]:
    path = tmp_path / "bundle.zip"
    write_bundle(path, ensemble_folder, onnx_files=onnx_files, extra=_EXTRA)
    return path, _read(path)


@pytest.mark.parametrize(
    "name", ["../escaped", "/escaped", "a\\..\\b", "C:escaped", "a//b", "a/", "a\nb"]
)
def test_names_that_leave_the_bundle_are_refused(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes], name: str
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    contents[name] = b"x"
    _sign(contents)
    _write(path, contents)
    with pytest.raises(UserError, match="names must be relative"):
        open_bundle(path)
    assert not (tmp_path.parent / "escaped").exists()


def test_a_changed_byte_on_disk_is_found(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    content = bytearray(path.read_bytes())
    content[content.index(contents[_MODEL]) + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{_MODEL} was changed"):
        open_bundle(path)


@pytest.mark.parametrize("keep", [0, 10, 100_000])
def test_a_truncated_zip_is_refused(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes], keep: int
) -> None:
    path, _ = _zip(tmp_path, ensemble_folder, onnx_files)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        open_bundle(path)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        open_bundle(tmp_path / "none.zip")


def test_compressed_entries_are_refused_before_they_unfold(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    contents["models/zeros.safetensors"] = bytes(50_000_000)
    _sign(contents)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is compressed"):
        open_bundle(path)


def test_links_are_refused(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    link = zipfile.ZipInfo("models/link.safetensors")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="must hold plain files"):
        open_bundle(path)
    folder = tmp_path / "bundle"
    write_bundle(folder, ensemble_folder, onnx_files=onnx_files, extra=_EXTRA)
    (folder / _MODEL).unlink()
    target = tmp_path / "target.safetensors"
    target.write_bytes(contents[_MODEL])
    (folder / _MODEL).symlink_to(target)
    with pytest.raises(UserError, match="must hold no links"):
        open_bundle(folder)


def test_a_name_given_twice_is_refused(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, _ = _zip(tmp_path, ensemble_folder, onnx_files)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("LICENSE", "other")
    with pytest.raises(UserError, match="names must be relative and differ"):
        open_bundle(path)


def _is_safe_to_open(path: Path) -> bool:
    """Whether a bundle opens; anything else must be a one-line `UserError`."""
    try:
        return isinstance(open_bundle(path), Ensemble)
    except UserError as error:
        assert "\n" not in str(error)
        return False


def _flip(path: Path, original: bytes, position: int, mask: int) -> None:
    content = bytearray(original)
    content[position] ^= mask
    path.write_bytes(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_flipped_bit_of_a_zip_is_worse_than_a_user_error(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    # Few and small, for speed; without its members not even the whole one opens.
    contents = {name: contents[name] for name in ("checksums.json", "configs/ensemble.json")}
    _sign(contents)
    _write(path, contents)
    original = path.read_bytes()
    directory = original.index(b"PK\x01\x02")
    bits = random.Random(0)
    flips = [(position, 1 << bits.randrange(8)) for position in bits.sample(range(directory), 150)]
    flips += [
        (position, 1 << bit) for position in range(directory, len(original)) for bit in range(8)
    ]
    for position, mask in flips:
        _flip(path, original, position, mask)
        assert not _is_safe_to_open(path)


def test_flipped_bytes_of_a_whole_bundle_are_found_or_harmless(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    path, contents = _zip(tmp_path, ensemble_folder, onnx_files)
    original = path.read_bytes()
    models = range(original.index(contents[_MODEL]), original.index(b"PK\x01\x02"))
    for position in random.Random(0).sample(models, 40):
        _flip(path, original, position, 0xFF)
        _is_safe_to_open(path)
    path.write_bytes(original)
    assert _is_safe_to_open(path)


def test_a_full_temporary_folder_is_not_blamed_on_the_bundle(
    bundle: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    with full_disk(), pytest.raises(UserError, match="cannot be written") as caught:
        open_bundle(bundle)
    assert str(caught.value).startswith(tempfile.gettempdir())


def test_a_missing_temporary_folder_is_not_blamed_on_the_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(bundle.parent / "none"))
    with pytest.raises(UserError, match="set TMPDIR"):
        open_bundle(bundle)


def test_a_full_disk_is_named_in_writing(
    tmp_path: Path,
    ensemble_folder: Path,
    onnx_files: dict[str, bytes],
    full_disk: Callable[[], AbstractContextManager[None]],
) -> None:
    for name in ("bundle.zip", "bundle"):
        with full_disk(), pytest.raises(UserError, match=f"{name}: cannot be written"):
            write_bundle(tmp_path / name, ensemble_folder, onnx_files=onnx_files, extra={})
        assert not (tmp_path / name).exists()
