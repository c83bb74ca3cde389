"""Simulated cases: the same bytes for the same seed, true to the layout, hard to threshold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from nibabel.affines import apply_affine

from strokeseg.errors import UserError
from strokeseg.phantoms.dataset import SEQUENCE_TAGS, write_phantoms
from strokeseg.phantoms.fields import smooth_field
from strokeseg.phantoms.plan import draw_plan, draw_volumes_ml

SPACING_MM = 3.0
CASES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("phantoms") / "cases"
    write_phantoms(target, cases=CASES, spacing_mm=SPACING_MM, seed=1)
    return target


def load(case: Path, tag: str) -> nib.Nifti1Image:
    (path,) = case.glob(f"VSD.Brain*.{tag}.*/*.nii")
    return nib.load(path)


def voxels(case: Path, tag: str) -> np.ndarray:
    return np.asarray(load(case, tag).dataobj)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def z_scored(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    return np.asarray((image - image[brain].mean()) / image[brain].std())


def test_equal_seeds_give_equal_bytes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    for name, workers in (("alone", 1), ("again", 1), ("shared", 2)):
        write_phantoms(tmp_path / name, cases=2, spacing_mm=5, seed=4, workers=workers)
    alone = contents(tmp_path / "alone")
    # Two cases of four sequences, a mask and a record, and the folder's own record.
    assert len(alone) == 2 * 6 + 1
    assert contents(tmp_path / "again") == alone
    assert contents(tmp_path / "shared") == alone


def test_another_seed_gives_other_images_and_masks(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "a", cases=1, spacing_mm=5, seed=1)
    write_phantoms(tmp_path / "b", cases=1, spacing_mm=5, seed=2)
    for tag in (*SEQUENCE_TAGS.values(), "OT"):
        assert not np.array_equal(voxels(tmp_path / "a/1", tag), voxels(tmp_path / "b/1", tag))


def test_layout_is_that_of_siss(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {str(number) for number in range(1, CASES + 1)} | {"phantom.json"}
    for case in (path for path in folder.iterdir() if path.is_dir()):
        kinds = []
        for path in case.glob("*/*"):
            assert path.name == f"{path.parent.name}.nii"
            kind, _, number = path.parent.name.rpartition(".")
            assert number.isdigit()
            kinds.append(kind)
        assert sorted(kinds) == [
            "VSD.Brain.XX.O.MR_DWI",
            "VSD.Brain.XX.O.MR_Flair",
            "VSD.Brain.XX.O.MR_T1",
            "VSD.Brain.XX.O.MR_T2",
            "VSD.Brain_3more.XX.O.OT",
        ]


def test_a_case_has_one_grid_and_the_types_of_siss(folder: Path) -> None:
    for number in range(1, CASES + 1):
        mask = load(folder / str(number), "OT")
        # 230 / 3 = 76.7, 154 / 3 = 51.3
        assert mask.shape == (77, 77, 51)
        assert mask.get_data_dtype() == np.uint8
        assert nib.aff2axcodes(mask.affine) == ("L", "P", "S")
        assert np.allclose(mask.header.get_zooms(), SPACING_MM)
        assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1}
        for tag in SEQUENCE_TAGS.values():
            image = load(folder / str(number), tag)
            assert image.shape == mask.shape
            assert image.get_data_dtype() == np.int16
            assert np.array_equal(image.affine, mask.affine)
            assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
            assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)


def test_a_grid_of_1_mm_is_that_of_siss(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "one", cases=1, spacing_mm=1, seed=0)
    assert load(tmp_path / "one/1", "MR_T1").shape == (230, 230, 154)


def test_all_sequences_show_one_brain_that_lies_inside_the_grid(folder: Path) -> None:
    for number in range(1, CASES + 1):
        images = [voxels(folder / str(number), tag) for tag in SEQUENCE_TAGS.values()]
        brain = images[0] > 0
        for image in images:
            assert image.min() == 0
            assert np.array_equal(image > 0, brain)
        faces = [brain.take(end, axis=axis).any() for axis in range(3) for end in (0, -1)]
        assert not any(faces)
        # Adult brains without their outer CSF have 0.9 to 1.6 litres.
        assert 850 < brain.sum() * SPACING_MM**3 / 1000 < 1600


def test_the_lesion_lies_in_the_brain_on_the_recorded_side(folder: Path) -> None:
    for number in range(1, CASES + 1):
        case = folder / str(number)
        mask = load(case, "OT")
        lesion = np.asarray(mask.dataobj) > 0
        brain = voxels(case, "MR_T1") > 0
        assert lesion.any()
        assert brain[lesion].all()

        record = json.loads((case / "simulation.json").read_text())
        assert record["lesion_ml"] == pytest.approx(lesion.sum() * SPACING_MM**3 / 1000, abs=1e-3)
        right_mm = [
            apply_affine(mask.affine, np.argwhere(part).mean(axis=0))[0] for part in (lesion, brain)
        ]
        assert (right_mm[0] > right_mm[1]) == (record["lesion"]["side"] == "right")


def test_lesions_are_bright_on_dwi_flair_t2_and_dark_on_t1_beside_the_other_side(
    folder: Path,
) -> None:
    differences: dict[str, list[float]] = {sequence: [] for sequence in SEQUENCE_TAGS}
    for number in range(1, CASES + 1):
        case = folder / str(number)
        lesion = voxels(case, "OT") > 0
        brain = voxels(case, "MR_T1") > 0
        middle = np.argwhere(brain)[:, 0].mean()
        x, y, z = np.nonzero(lesion)
        flipped = np.clip(np.rint(2 * middle - x).astype(int), 0, brain.shape[0] - 1)
        kept = brain[flipped, y, z]
        for sequence, tag in SEQUENCE_TAGS.items():
            image = z_scored(voxels(case, tag), brain)
            apart = image[x, y, z][kept].mean() - image[flipped, y, z][kept].mean()
            differences[sequence].append(float(apart))
    means = {sequence: float(np.mean(values)) for sequence, values in differences.items()}
    assert means["DWI"] > 1.5
    assert means["FLAIR"] > 0.7
    assert means["T2"] > 0.2
    assert -2 < means["T1"] < -0.2


def test_no_global_dwi_threshold_finds_the_lesions_but_it_finds_some(folder: Path) -> None:
    thresholds = np.arange(0, 8, 0.1)
    dice = np.zeros((CASES, len(thresholds)))
    for row in range(CASES):
        case = folder / str(row + 1)
        dwi = voxels(case, "MR_DWI")
        brain = dwi > 0
        truth = voxels(case, "OT")[brain] > 0
        scores = z_scored(dwi, brain)[brain]
        for column, threshold in enumerate(thresholds):
            found = scores > threshold
            dice[row, column] = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert 0.2 < dice.mean(axis=0).max() < 0.65


def test_volumes_have_the_percentiles_of_real_strokes() -> None:
    volumes = draw_volumes_ml(np.random.default_rng(0), 4000)
    assert np.percentile(volumes, [5, 50, 95]) == pytest.approx([0.3, 13, 200], rel=0.02)


def test_few_volumes_are_spread_like_many() -> None:
    # One in each quarter: two below the median of 13 ml, two above.
    for seed in range(20):
        volumes = draw_volumes_ml(np.random.default_rng(seed), 4)
        assert (volumes < 13).sum() == 2


@pytest.mark.parametrize(
    ("cases", "share", "lesion_free"), [(10, 0.0, 0), (10, 0.3, 3), (7, 0.25, 2), (4, 1.0, 4)]
)
def test_the_lesion_free_share_is_rounded_to_whole_cases(
    cases: int, share: float, lesion_free: int
) -> None:
    # 7 x 0.25 = 1.75, hence 2.
    plan = draw_plan(cases, seed=3, lesion_free_share=share)
    assert [case.number for case in plan] == list(range(1, cases + 1))
    assert sum(case.volume_ml is None for case in plan) == lesion_free


def test_a_case_without_a_lesion_has_an_empty_mask_and_all_images(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "free", cases=2, spacing_mm=5, seed=0, lesion_free_share=0.5)
    sizes = [int(voxels(tmp_path / "free" / name, "OT").sum()) for name in ("1", "2")]
    assert min(sizes) == 0
    assert max(sizes) > 0
    record = json.loads(
        (tmp_path / "free" / str(sizes.index(0) + 1) / "simulation.json").read_text()
    )
    assert record["lesion"] is None
    assert record["lesion_ml"] == 0


def test_the_smallest_lesions_keep_several_voxels_on_coarse_grids(tmp_path: Path) -> None:
    # Six voxels of 6 mm are 1.3 ml, more than a fifth of all strokes have.
    write_phantoms(tmp_path / "coarse", cases=8, spacing_mm=6, seed=0)
    assert min(voxels(tmp_path / "coarse" / str(n), "OT").sum() for n in range(1, 9)) >= 4


def test_the_folder_says_how_it_came_about(folder: Path) -> None:
    assert json.loads((folder / "phantom.json").read_text()) == {
        "cases": CASES,
        "spacing_mm": 3.0,
        "seed": 1,
        "lesion_free_share": 0.0,
        "generator_version": 1,
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_left_when_the_work_is_interrupted(tmp_path: Path, workers: int) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(
            tmp_path / "cut",
            cases=4,
            spacing_mm=5,
            seed=0,
            workers=workers,
            on_case=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


_MANY = """
import sys
from pathlib import Path
from strokeseg.phantoms.dataset import write_phantoms
if __name__ == "__main__":
    say = lambda name: print(name, flush=True)
    write_phantoms(
        Path(sys.argv[1]) / "many", cases=500, spacing_mm=6, seed=0, workers=2, on_case=say
    )
"""


def test_no_process_outlives_one_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(_MANY)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().strip().isdigit()
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    for one in alive:
        one.kill()
    assert not alive


def test_every_case_is_reported_once(tmp_path: Path) -> None:
    names: list[str] = []
    write_phantoms(tmp_path / "named", cases=3, spacing_mm=6, seed=0, on_case=names.append)
    assert sorted(names) == ["1", "2", "3"]


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        write_phantoms(tmp_path, cases=1, spacing_mm=5, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_phantoms(tmp_path / "file" / "cases", cases=1, spacing_mm=5, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_all_settings_out_of_range_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_phantoms(
            tmp_path / "bad",
            cases=0,
            spacing_mm=float("nan"),
            seed=-1,
            lesion_free_share=1.5,
            workers=0,
        )
    for name in ("cases", "spacing_mm", "seed", "lesion_free_share", "workers"):
        assert f"{name} must be" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_field_is_one_function_of_position_with_unit_deviation() -> None:
    fine = np.arange(-100.0, 101.0, 2.0)
    coarse = fine[::5]
    field = smooth_field(np.random.default_rng(0), (fine, fine, fine), 8.0)
    # About 25**3 independent values: a deviation of 1 within one in a hundred or so.
    assert field.std() == pytest.approx(1, abs=0.05)
    assert field.mean() == pytest.approx(0, abs=0.05)
    seen_coarsely = smooth_field(np.random.default_rng(0), (coarse, coarse, coarse), 8.0)
    assert np.allclose(field[::5, ::5, ::5], seen_coarsely, atol=1e-6)
    # Two voxels apart (a quarter of the scale) it has hardly changed.
    assert np.abs(np.diff(field, axis=0)).mean() < 0.25
