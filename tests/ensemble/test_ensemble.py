"""Members, what their record may say, and how they decide together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from strokeseg.ensemble.torch_predictor import load_ensemble
from strokeseg.ensemble.vote import Ensemble, predict_members, segment
from strokeseg.errors import UserError
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.records.config import NetworkConfig
from strokeseg.records.ensemble import EnsembleRecord, Rule, write_ensemble
from strokeseg.records.member import MemberRecord
from strokeseg.records.member_header import read_member_record
from strokeseg.storage.files import file_sha256, read_json, write_json
from strokeseg.training.checkpoint import save_member
from strokeseg.training.network import build_network

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


def test_a_case_is_segmented_on_its_native_grid(
    ensemble_folder: Path, prepared: PreparedCase
) -> None:
    ensemble = load_ensemble(ensemble_folder)
    decision = segment(ensemble, prepared)
    maps = {
        predictor.axis: map_ for predictor, map_ in predict_members(ensemble.predictors, prepared)
    }
    assert maps.keys() == {"axial", "coronal", "sagittal"}
    for axis, probability in maps.items():
        assert probability.shape == (30, 40, 12)
        np.testing.assert_array_equal(decision.axis_probabilities[axis], probability)
        np.testing.assert_array_equal(
            decision.axis_masks[axis], (probability >= 0.5).astype(np.uint8)
        )
    votes = sum(mask.astype(int) for mask in decision.axis_masks.values())
    np.testing.assert_array_equal(decision.mask, (votes >= 2).astype(np.uint8))


def test_predictors_bear_the_names_of_their_files(ensemble_folder: Path) -> None:
    predictors = load_ensemble(ensemble_folder).predictors
    assert [predictor.name for predictor in predictors] == ["axial-0", "coronal-1", "sagittal-2"]


def test_members_of_an_axis_decide_by_the_rule_of_the_record(
    tmp_path: Path, prepared: PreparedCase, member_record: Callable[..., MemberRecord]
) -> None:
    files = {}
    for trial in (1, 2):
        path = tmp_path / f"axial-{trial}.safetensors"
        network = build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=trial
        )
        save_member(path, network, member_record("axial", trial))
        files[path.name] = path
    masks = {}
    for within in ("mean", "vote"):
        record = EnsembleRecord(
            name="two",
            sequences=_SEQUENCES,
            rule=Rule.model_validate({"within": within, "threshold": 0.4}),
            members={"axial": tuple(files)},
            preparation_hash="abc",
            code_version="1",
        )
        write_ensemble(tmp_path / within, record, files)
        ensemble = load_ensemble(tmp_path / within)
        masks[within] = segment(ensemble, prepared).mask
    first, second = (map_ for _, map_ in predict_members(ensemble.predictors, prepared))
    np.testing.assert_array_equal(masks["mean"], (first + second) / 2 >= np.float32(0.4))
    # Of two members both must say lesion, since a tie is lesion-free.
    both = (first >= np.float32(0.4)) & (second >= np.float32(0.4))
    np.testing.assert_array_equal(masks["vote"], both)


def test_a_case_with_other_sequences_is_refused(
    ensemble_folder: Path, prepared: PreparedCase
) -> None:
    ensemble = load_ensemble(ensemble_folder)
    record = ensemble.record.model_copy(update={"sequences": ("DWI",)})
    with pytest.raises(ValueError, match="got 2 channels"):
        segment(Ensemble(predictors=ensemble.predictors, record=record), prepared)


def test_comparisons_load_by_name(ensemble_folder: Path) -> None:
    scratch = load_ensemble(ensemble_folder, "scratch")
    assert [predictor.name for predictor in scratch.predictors] == ["axial-0"]
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
    network = build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=9)
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
        (lambda folder: _change(folder, rule={"threshold": 1.5}), r"rule\.threshold"),
        (lambda folder: _change(folder, rule={"between": "loud"}), r"rule\.between"),
        (lambda folder: _change(folder, rule={"axis_weights": {"axial": 2}}), r"axis_weights"),
        (lambda folder: _change(folder, rule={"smallest_lesion_mm3": -1}), "smallest_lesion_mm3"),
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


def test_a_rule_says_in_words_all_that_it_does() -> None:
    assert Rule().in_words() == (
        "majority of the axes, a tie being lesion-free, lesion from probability 0.5; members of "
        "an axis by their mean"
    )
    rule = Rule.model_validate(
        {
            **{"between": "soft", "within": "vote", "threshold": 0.4},
            "smallest_lesion_mm3": 30,
        }
    )
    assert rule.in_words() == (
        "mean probability of the axes, lesion from probability 0.4; members of an axis vote among "
        "themselves; lesions below 30 mm³ dropped"
    )
