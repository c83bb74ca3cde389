"""Members and their vote."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from strokeseg.errors import UserError
from strokeseg.files import file_sha256, read_json, write_json
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.learning.checkpoint import MemberRecord, read_member_record, save_member
from strokeseg.learning.ensemble import (
    EnsembleRecord,
    load_ensemble,
    segment,
    vote,
    write_ensemble,
)
from strokeseg.learning.inference import predict_volume
from strokeseg.learning.networks import build_network

_SEQUENCES = ("DWI", "FLAIR")


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedCase:
    """A box of noise in a volume stored right to left, spacing 2 x 2 x 4 mm."""
    generator = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 4.0, 1.0])
    images = {}
    for sequence in _SEQUENCES:
        voxels = np.zeros((30, 40, 12), dtype=np.float32)
        voxels[4:26, 5:35, 1:11] = generator.uniform(50, 150, size=(22, 30, 10))
        images[sequence] = tmp_path / f"{sequence}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, affine), images[sequence])
    return prepare_case(images, sequences=_SEQUENCES)


def test_three_axes_vote_by_majority() -> None:
    # All eight ways that three axes can see a voxel.
    seen = np.array(list(itertools.product([0, 1], repeat=3)), dtype=np.uint8)
    result = vote({"axial": seen[:, 0], "coronal": seen[:, 1], "sagittal": seen[:, 2]})
    #                        000 001 010 011 100 101 110 111
    assert result.tolist() == [0, 0, 0, 1, 0, 1, 1, 1]
    assert result.dtype == np.uint8


def test_of_two_axes_both_must_agree_and_one_decides_alone() -> None:
    first, second = np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 0, 1], np.uint8)
    assert vote({"axial": first, "coronal": second}).tolist() == [0, 0, 0, 1]
    assert vote({"axial": first}).tolist() == [0, 0, 1, 1]


def test_masks_of_different_shapes_cannot_vote() -> None:
    with pytest.raises(ValueError, match="one shape"):
        vote({"axial": np.zeros(2, np.uint8), "coronal": np.zeros(3, np.uint8)})
    with pytest.raises(ValueError, match="no masks"):
        vote({})


def test_a_case_is_segmented_on_its_native_grid(
    ensemble_folder: Path, prepared: PreparedCase
) -> None:
    ensemble = load_ensemble(ensemble_folder)
    result = segment(ensemble, prepared)
    assert result.masks.keys() == {"axial", "coronal", "sagittal", "vote"}
    assert result.probabilities.keys() == {"axial", "coronal", "sagittal"}
    for axis, probability in result.probabilities.items():
        assert probability.shape == (30, 40, 12)
        network = ensemble.members[axis][0].network
        expected = prepared.restore(predict_volume(network, prepared.images, axis))
        np.testing.assert_array_equal(probability, expected)
        np.testing.assert_array_equal(result.masks[axis], (probability >= 0.5).astype(np.uint8))
    axes = {axis: result.masks[axis] for axis in result.probabilities}
    np.testing.assert_array_equal(result.masks["vote"], vote(axes))


def test_members_of_an_axis_average_before_the_threshold(
    tmp_path: Path, prepared: PreparedCase, member_record: Callable[..., MemberRecord]
) -> None:
    files, networks = {}, []
    for trial in (1, 2):
        path = tmp_path / f"axial-{trial}.safetensors"
        networks.append(build_network(encoder="resnet18", encoder_depth=3, channels=2, seed=trial))
        save_member(path, networks[-1], member_record("axial", trial))
        files[path.name] = path
    record = EnsembleRecord(
        name="two",
        sequences=_SEQUENCES,
        threshold=0.4,
        members={"axial": tuple(files)},
        preparation_hash="abc",
        code_version="1",
    )
    write_ensemble(tmp_path / "two", record, files)
    result = segment(load_ensemble(tmp_path / "two"), prepared)
    first, second = (
        prepared.restore(predict_volume(network, prepared.images, "axial")) for network in networks
    )
    np.testing.assert_allclose(result.probabilities["axial"], (first + second) / 2, atol=1e-6)
    assert set(result.masks) == {"axial", "vote"}
    np.testing.assert_array_equal(
        result.masks["vote"], (result.probabilities["axial"] >= 0.4).astype(np.uint8)
    )


def test_a_case_with_other_sequences_is_refused(
    ensemble_folder: Path, prepared: PreparedCase
) -> None:
    ensemble = load_ensemble(ensemble_folder)
    ensemble = type(ensemble)(
        members=ensemble.members,
        record=ensemble.record.model_copy(update={"sequences": ("DWI",)}),
    )
    with pytest.raises(ValueError, match="got 2 channels"):
        segment(ensemble, prepared)


def test_comparisons_load_by_name(ensemble_folder: Path) -> None:
    assert set(load_ensemble(ensemble_folder, "scratch").members) == {"axial"}
    with pytest.raises(UserError, match="no comparison 'other', known are scratch"):
        load_ensemble(ensemble_folder, "other")


def test_an_ensemble_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    record = EnsembleRecord(
        name="toy",
        sequences=_SEQUENCES,
        members={"axial": ("axial-0.safetensors",)},
        preparation_hash="abc",
        code_version="1",
    )
    with pytest.raises(ValueError, match="needs the files"):
        write_ensemble(tmp_path / "ensemble", record, {})
    with pytest.raises(UserError, match="cannot be copied"):
        write_ensemble(tmp_path / "ensemble", record, {"axial-0.safetensors": tmp_path / "missing"})
    assert list(tmp_path.iterdir()) == []


def test_the_record_holds_the_hash_of_every_file(ensemble_folder: Path) -> None:
    record = load_ensemble(ensemble_folder).record
    assert record.sha256 == {
        name: file_sha256(ensemble_folder / "members" / name) for name in record.file_names()
    }


def _swap_members(folder: Path) -> None:
    members = folder / "members"
    shutil.copyfile(members / "coronal-1.safetensors", members / "axial-0.safetensors")


def _other_axis(folder: Path) -> None:
    _swap_members(folder)
    sha256 = read_json(folder / "ensemble.json")["sha256"]
    sha256["axial-0.safetensors"] = sha256["coronal-1.safetensors"]
    _change(folder, sha256=sha256)


def _train_on(folder: Path) -> None:
    """Write other weights of the same shapes under the same record."""
    path = folder / "members/axial-0.safetensors"
    network = build_network(encoder="resnet18", encoder_depth=3, channels=2, seed=9)
    save_member(path, network, read_member_record(path))


def _change(folder: Path, **changes: object) -> None:
    path = folder / "ensemble.json"
    write_json(path, read_json(path) | changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_other_axis, "must be a member for axis"),
        (_swap_members, r"axial-0\.safetensors: was changed after it was promoted"),
        (_train_on, r"axial-0\.safetensors: was changed after it was promoted"),
        (lambda folder: _change(folder, sha256={}), "was changed after it was promoted"),
        (lambda folder: _change(folder, sha256={"a.safetensors": "x"}), "sha256"),
        (lambda folder: (folder / "ensemble.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "members/axial-0.safetensors").unlink(), "axial-0"),
        (lambda folder: _change(folder, members={}), "members"),
        (lambda folder: _change(folder, members={"axial": []}), "members"),
        (lambda folder: _change(folder, members={"oblique": ["a.safetensors"]}), "members"),
        (lambda folder: _change(folder, members={"axial": ["../x.safetensors"]}), "pattern"),
        (lambda folder: _change(folder, members={"axial": ["/x.safetensors"]}), "pattern"),
        (lambda folder: _change(folder, sequences=["T1", "T2"]), "sequences"),
        (lambda folder: _change(folder, spacing_mm=[1, 1, 1]), "spacing"),
        (lambda folder: _change(folder, spacing_mm=[1, 1, 0.01]), r"spacing_mm\.2"),
        (lambda folder: _change(folder, spacing_mm=[1, 1, 1e300]), r"spacing_mm\.2"),
        (lambda folder: _change(folder, sequences=[f"S{n}" for n in range(33)]), "sequences: "),
        (lambda folder: _change(folder, reference="T7"), "reference must be one of"),
        (
            lambda folder: _change(folder, members={"axial": ["axial-0.safetensors"] * 101}),
            r"members\.axial",
        ),
        (lambda folder: _change(folder, threshold=1.5), "threshold"),
        (lambda folder: (folder / "ensemble.json").write_text("[]"), "must hold an object"),
    ],
)
def test_damaged_ensembles_are_refused(
    ensemble_folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(ensemble_folder)
    with pytest.raises(UserError, match=words) as caught:
        load_ensemble(ensemble_folder)
    assert str(ensemble_folder) in str(caught.value)
