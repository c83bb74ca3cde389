"""One scan is known again in disguise, and two people are not taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from strokeseg.imaging.layouts.siss import find_siss_cases
from strokeseg.imaging.prepared import prepare_case
from strokeseg.phantoms.dataset import write_phantoms
from strokeseg.preparation.similarity import SAME_SCAN_FROM, SIDE, describe, similarities

SISS = ("T1", "T2", "DWI", "FLAIR")
SHARED = Path(__file__).parents[3] / "shared" / "data"

Image = NDArray[np.float32]


def head(seed: int) -> Image:
    """An ellipsoid of 66 x 80 x 58 voxels, folded inside as the seed has it, 0 around it."""
    axes = np.ogrid[-38:39, -45:46, -34:35]
    inside = sum((axis / reach) ** 2 for axis, reach in zip(axes, (33, 40, 29), strict=True)) < 1
    generator = np.random.default_rng(seed)
    folds = ndimage.gaussian_filter(generator.standard_normal(inside.shape), 3)
    folds *= 20 / folds[inside].std()
    noise = 2 * generator.standard_normal(inside.shape)
    return np.where(inside, 100 + folds + noise, 0).astype(np.float32)


def resampled(image: Image, ratio: tuple[float, float, float], order: int = 1) -> Image:
    """The image on voxels of another size, as a viewer or a registration writes it."""
    factor = np.array(ratio)
    shape = tuple(int(side) for side in np.rint(np.array(image.shape) * factor))
    return ndimage.affine_transform(
        image, 1 / factor, offset=(1 / factor - 1) / 2, output_shape=shape, order=order
    )


def turned(image: Image, degrees: float) -> Image:
    return ndimage.rotate(np.pad(image, 3), degrees, axes=(0, 1), reshape=False, order=1)


def noisy(image: Image, share: float) -> Image:
    noise = np.random.default_rng(9).standard_normal(image.shape)
    return np.where(image != 0, image + share * image[image != 0].std() * noise, 0).astype("f4")


def cut_below(image: Image, layers: int) -> Image:
    """The image without its lowest layers of brain, as a shorter scan would be."""
    lowest = np.flatnonzero((image != 0).any(axis=(0, 1)))[0]
    return image[:, :, lowest + layers :]


def in_bytes(image: Image) -> Image:
    low, high = image[image != 0].min(), image.max()
    return np.where(image != 0, np.rint(1 + 254 * (image - low) / (high - low)), 0).astype("f4")


def biased(image: Image) -> Image:
    """Brighter to the right and to the front, as another coil would have it."""
    x, y = (np.linspace(-1, 1, side, dtype="f4") for side in image.shape[:2])
    return image * (1 + 0.2 * x[:, np.newaxis, np.newaxis] + 0.2 * y[:, np.newaxis])


def with_lesion(image: Image) -> Image:
    """The image with a ball of a quarter of its width that is twice as bright."""
    middle = [side // 2 for side in image.shape]
    axes = np.ogrid[tuple(slice(side) for side in image.shape)]
    away = sum((axis - place) ** 2 for axis, place in zip(axes, middle, strict=True))
    return np.where(away < (image.shape[0] / 8) ** 2, 2 * image, image)


DISGUISES: dict[str, Callable[[Image], Image]] = {
    "saved in bytes": in_bytes,
    "rescaled": lambda image: np.where(image != 0, 0.01 * image + 7, 0).astype("f4"),
    "flipped": lambda image: image[::-1],
    "turned upside down": lambda image: image[:, ::-1, ::-1],
    "shifted and padded": lambda image: np.pad(image, ((7, 2), (0, 5), (3, 0))),
    "cropped to the brain": lambda image: image[ndimage.find_objects((image != 0).astype(int))[0]],
    "shifted by half a voxel": lambda image: ndimage.shift(np.pad(image, 2), 0.5, order=1),
    "without its lowest layers": lambda image: cut_below(image, 3),
    "on smaller voxels": lambda image: resampled(image, (1.1, 1.1, 1.1)),
    "on larger voxels": lambda image: resampled(image, (0.8, 0.8, 0.8)),
    "in thick slices": lambda image: resampled(image, (1, 1, 0.6)),
    "with noise": lambda image: noisy(image, 0.1),
    "with a bias field": biased,
    "turned by two degrees": lambda image: turned(image, 2),
    "all of it": lambda image: noisy(
        in_bytes(resampled(cut_below(image[::-1], 2), (1.05, 1.05, 1.05))), 0.05
    ),
}


def similarity(one: Image, other: Image) -> float:
    return float(similarities([describe(one), describe(other)])[0, 1])


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_scan_is_known_again(disguise: str) -> None:
    copy = np.ascontiguousarray(DISGUISES[disguise](head(1)))
    assert similarity(head(1), copy) > SAME_SCAN_FROM
    assert similarity(head(2), copy) < 0.5


def test_two_people_with_one_lesion_are_not_one_person() -> None:
    # Five standard deviations above the folds, and in the very same place.
    assert similarity(with_lesion(head(1)), with_lesion(head(2))) < 0.5
    assert similarity(with_lesion(head(1)), with_lesion(head(1))[::-1]) > SAME_SCAN_FROM


def test_every_flip_is_tried() -> None:
    image = head(3)
    for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        assert similarity(image, np.flip(image, axes)) > 0.99


def test_a_similarity_is_the_correlation_of_cells_in_the_best_flip() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.integers(-127, 128, (2, SIDE, SIDE, SIDE)).astype(np.int8)
    one, other = pictures.astype(float)
    pairs = [
        (one * np.flip(other, [axis for axis in range(3) if mask >> axis & 1])).sum()
        for mask in range(8)
    ]
    expected = max(pairs) / np.sqrt((one**2).sum() * (other**2).sum())
    found = similarities(list(pictures))
    assert found[0, 1] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)


def test_a_descriptor_takes_14_kilobytes() -> None:
    assert describe(head(1)).nbytes == 13_824


@pytest.mark.parametrize(
    "image",
    [
        np.ones((3, 3, 3), dtype=np.float32),
        np.pad(np.ones((40, 40, 40), dtype=np.float32), 2),
        np.pad(np.ones((1, 1, 1), dtype=np.float32), 20),
        np.pad(np.ones((20, 20, 1), dtype=np.float32), 20),
    ],
    ids=["without an inside", "flat", "one voxel", "one layer"],
)
def test_an_image_that_shows_nothing_resembles_nothing(image: Image) -> None:
    assert not describe(image).any()
    assert similarity(image, image) == 0
    assert similarity(image, head(1)) == 0


def siss_images(folder: Path) -> dict[str, Image]:
    """Per case, (C, X, Y, Z)."""
    return {
        case.name: prepare_case(case.images, sequences=SISS).images
        for case in find_siss_cases(folder, SISS, masks=False)
    }


def most_similar(images: dict[str, Image]) -> float:
    """The largest similarity of two different cases, in any sequence."""
    descriptors = [[describe(image) for image in channels] for channels in images.values()]
    found = [similarities(list(column)) for column in zip(*descriptors, strict=True)]
    return float(np.triu(np.stack(found), 1).max())


@pytest.mark.parametrize(("spacing_mm", "cases"), [(6, 12), (5, 8), (3, 5), (2, 3)])
def test_phantoms_of_one_template_are_different_people(
    tmp_path: Path, spacing_mm: float, cases: int
) -> None:
    write_phantoms(tmp_path / "cases", cases=cases, spacing_mm=spacing_mm, seed=3)
    assert most_similar(siss_images(tmp_path / "cases")) < SAME_SCAN_FROM


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("phantom") / "cases"
    write_phantoms(folder, cases=1, spacing_mm=2, seed=3)
    return siss_images(folder)["1"]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_phantom_is_known_again_in_one_of_its_sequences(phantom: Image, disguise: str) -> None:
    copies = [np.ascontiguousarray(DISGUISES[disguise](image)) for image in phantom]
    found = [similarity(image, copy) for image, copy in zip(phantom, copies, strict=True)]
    assert max(found) > SAME_SCAN_FROM, found


def test_simulated_subjects_on_one_brain_are_different_people() -> None:
    folder = SHARED / "siss-like"
    if not folder.is_dir():
        pytest.skip(f"shared data absent: {folder}")
    images = siss_images(folder)
    # Pairs of the twenty are one brain, flipped and bent, with another scanner and stroke.
    assert most_similar(images) < 0.75
    for channel in images["3"]:
        copy = np.ascontiguousarray(DISGUISES["all of it"](channel))
        assert similarity(channel, copy) > SAME_SCAN_FROM
