"""Prepared cases: what a network sees of a case, and the way back to its files' grid.

The *canvas* is the grid of a case in RAS+ order, before it is cropped to the brain (see
`brain` for that word). The *native* grid is that of the files; with a *reference*
sequence, that of its file.

Preparing crops what `scan` has read to the brain and normalises every sequence inside it. What
does not fit is a fault, and a case's faults are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import CaseError
from strokeseg.imaging.brain import bounding_box, find_brain, normalise, window
from strokeseg.imaging.nifti_content import MOST_VOXELS
from strokeseg.imaging.scan import (
    LesionLabels,
    collecting,
    file_and_sequence,
    raise_all,
    read_scan,
)
from strokeseg.imaging.volume import Grid, Shape, Volume, from_ras, to_ras, voxels_on

SPACING_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """One case, ready to be cut into slices.

    Attributes:
        images: (C, X, Y, Z) float32 in RAS+ order, cropped to the brain; every sequence
            has mean 0 and standard deviation 1 inside the brain, as far as it covers it,
            and is 0 elsewhere.
        mask: (X, Y, Z) uint8, 0 and 1, on the grid of `images`, or None.
        native_grid: The grid of the reference sequence's file, or of the first sequence's.
        native_mask: uint8, 0 and 1, on `native_grid`, never resampled, or None. What
            evaluation scores against.
        canvas: Grid of the volume that `images` is cropped from.
        crop_start: First voxel (x, y, z) of the crop on the canvas.
    """

    images: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    native_grid: Grid
    native_mask: NDArray[np.uint8] | None
    canvas: Grid
    crop_start: Shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of `images` along X, Y, Z in RAS+ order."""
        return self.canvas.spacing_mm

    def restore(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map from the grid of `images` back to the native grid.

        Args:
            probability: (X, Y, Z) float32, 0 to 1.

        Returns:
            Native shape, float32, 0 outside the crop. The very values when the case was
            not resampled to another spacing, otherwise interpolated linearly.

        Raises:
            ValueError: When the map has not the shape of the images.
        """
        x, y, z = self.images.shape[1:]
        if probability.shape != (x, y, z):
            raise ValueError(f"a map must have shape {(x, y, z)}, got {probability.shape}")
        voxels = np.zeros(self.canvas.shape, dtype=np.float32)
        voxels[window(self.crop_start, (x, y, z))] = probability
        ras_grid = self.native_grid.in_ras_order()
        restored = voxels_on(Volume(voxels=voxels, grid=self.canvas), ras_grid, 1)
        return np.ascontiguousarray(from_ras(restored, self.native_grid), dtype=np.float32)

    def project(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a mask from the native grid to the grid of `images`, to the nearest voxel.

        Args:
            mask: uint8, 0 and 1, on `native_grid`.

        Returns:
            (X, Y, Z) uint8; what lies outside the crop is lost.

        Raises:
            ValueError: When the mask has not the native shape.
        """
        if mask.shape != self.native_grid.shape:
            raise ValueError(f"a mask must have shape {self.native_grid.shape}, got {mask.shape}")
        on_canvas = voxels_on(to_ras(Volume(voxels=mask, grid=self.native_grid)), self.canvas, 0)
        x, y, z = self.images.shape[1:]
        return np.ascontiguousarray(on_canvas[window(self.crop_start, (x, y, z))])


def prepare_case(
    images: Mapping[str, Path],
    *,
    sequences: Sequence[str],
    mask: Path | None = None,
    lesion_labels: LesionLabels = "binary",
    reference: str | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    faults: Sequence[str] = (),
) -> PreparedCase:
    """Read, check and normalise one case.

    Args:
        images: One NIfTI file for every sequence.
        sequences: Sequences in the order of the channels.
        mask: NIfTI file of the lesion's labels; all zero for a case without a lesion.
        lesion_labels: `binary` when the mask must hold 0 and 1 only, `any` when every
            label above 0 is lesion, or the labels that are lesion.
        reference: Sequence onto whose grid the others are resampled (linearly); None to
            insist on one grid.
        spacing_mm: Voxel size (x, y, z) in RAS+ order to resample to, images linearly and
            mask to the nearest voxel, when the case's own differs by more than 1 %.
        faults: What `Case.faults` says; it then speaks for missing sequences, too.

    Raises:
        CaseError: With all faults of the case: those given; sequences that are missing; files
            that cannot be read; images without content or background; masks with other
            labels; grids that differ; and, where none of these hides it, a sequence that is
            constant inside the brain and a lesion that is for the most part outside it.
    """
    scan = read_scan(
        images,
        sequences=sequences,
        mask=mask,
        lesion_labels=lesion_labels,
        reference=reference,
        faults=faults,
    )
    first = images[reference or sequences[0]]
    canvas = _canvas(scan.native_grid, spacing_mm, first)
    on_canvas = [_image_onto(scan.images[sequence], canvas) for sequence in sequences]
    brain = find_brain(on_canvas)
    start, sides = bounding_box(brain)
    crop = window(start, sides)
    found: list[str] = []
    label = native_mask = None
    if scan.lesion is not None:
        lesion = voxels_on(scan.lesion, canvas, 0)
        with collecting(found):
            _check_lesion_inside(lesion, brain, mask)
        label = np.ascontiguousarray(lesion[crop], dtype=np.uint8)
        native_mask = np.ascontiguousarray(
            from_ras(scan.lesion.voxels, scan.native_grid), dtype=np.uint8
        )
    channels = np.stack([image[crop] for image in on_canvas])
    for sequence, channel in zip(sequences, channels, strict=True):
        with collecting(found):
            normalise(channel, brain[crop], file_and_sequence(images, sequence))
    raise_all(found)
    return PreparedCase(
        images=channels,
        mask=label,
        native_grid=scan.native_grid,
        native_mask=native_mask,
        canvas=canvas,
        crop_start=start,
    )


def _canvas(native_grid: Grid, spacing_mm: tuple[float, float, float] | None, path: Path) -> Grid:
    grid = native_grid.in_ras_order()
    if spacing_mm is None or np.allclose(
        grid.spacing_mm, spacing_mm, rtol=SPACING_TOLERANCE, atol=0
    ):
        return grid
    canvas = grid.with_spacing(spacing_mm)
    if (voxels := prod(canvas.shape)) > MOST_VOXELS:
        raise CaseError(
            f"{path}: would have {voxels} voxels when it is resampled from {grid} to "
            f"{' x '.join(f'{side:g}' for side in spacing_mm)} mm, at most {MOST_VOXELS} are "
            "possible; mend its affine, or choose a larger spacing"
        )
    return canvas


def _check_lesion_inside(lesion: NDArray[Any], brain: NDArray[np.bool_], path: Path | None) -> None:
    total = int(np.count_nonzero(lesion))
    outside = total - int(np.count_nonzero(brain[lesion.astype(bool)]))
    if 2 * outside > total:
        raise CaseError(
            f"{path}: the lesion must lie in the brain, {outside} of its {total} voxels lie "
            "outside; is it the mask of another case, or flipped?"
        )


def _image_onto(image: Volume, grid: Grid) -> NDArray[Any]:
    """An image on another grid, without the rim that interpolation leaves around it."""
    if image.grid.matches(grid):
        return image.voxels
    foreground = Volume(voxels=image.voxels != 0, grid=image.grid)
    resampled: NDArray[Any] = voxels_on(image, grid, 1) * voxels_on(foreground, grid, 0)
    return resampled
