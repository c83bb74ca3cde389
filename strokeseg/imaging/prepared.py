"""Prepared cases: what a network sees of a case, and the way back to its files' grid.

The *canvas* is the grid of a case in RAS+ order, before it is cropped to the brain (see
`brain` for that word). The *native* grid is that of the files; with a *reference*
sequence, that of its file.

Preparing reads a case's files, makes sure that they belong together, crops them to the
brain and normalises every sequence inside it. Nothing is mended in silence: what does
not fit is a fault, and a case's faults are reported together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import CaseError
from strokeseg.imaging.brain import (
    bounding_box,
    find_brain,
    normalise,
    window,
    without_background,
)
from strokeseg.imaging.volume import Grid, Shape, Volume, from_ras, read_volume, resample, to_ras

LesionLabels: TypeAlias = Literal["binary", "any"] | tuple[int, ...]

SPACING_TOLERANCE = 0.01
# Labels come out of float32 scaling factors such as 1/255 a little off.
_LABEL_TOLERANCE = 1e-3
_LABELS_SHOWN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """One case, ready to be cut into slices.

    Attributes:
        images: (C, X, Y, Z) float32 in RAS+ order, cropped to the brain; every sequence
            has mean 0 and standard deviation 1 inside the brain, as far as it covers it,
            and is 0 elsewhere.
        mask: (X, Y, Z) uint8, 0 and 1, on the grid of `images`, or nothing.
        native_grid: The grid of the reference sequence's file, or of the first sequence's.
        native_mask: uint8, 0 and 1, on `native_grid`, never resampled, or nothing. What
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
        restored = _onto(Volume(voxels=voxels, grid=self.canvas), ras_grid, 1)
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
        on_canvas = _onto(to_ras(Volume(voxels=mask, grid=self.native_grid)), self.canvas, 0)
        x, y, z = self.images.shape[1:]
        return np.ascontiguousarray(on_canvas[window(self.crop_start, (x, y, z))])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scan:
    """A case as read, in RAS+ order.

    Attributes:
        images: By sequence, (X, Y, Z) float32 with background 0.
        lesion: (X, Y, Z) bool on the native grid in RAS+ order, or nothing.
        native_grid: The grid of the reference sequence's file, or of the first sequence's.
    """

    images: Mapping[str, Volume]
    lesion: Volume | None
    native_grid: Grid


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
        reference: Sequence onto whose grid the others are resampled (linearly); nothing to
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
    scan = _read_scan(
        images,
        sequences=sequences,
        mask=mask,
        lesion_labels=lesion_labels,
        reference=reference,
        faults=faults,
    )
    canvas = _canvas(scan.native_grid, spacing_mm)
    on_canvas = [_image_onto(scan.images[sequence], canvas) for sequence in sequences]
    brain = find_brain(on_canvas)
    start, sides = bounding_box(brain)
    crop = window(start, sides)
    found: list[str] = []
    label = native_mask = None
    if scan.lesion is not None:
        lesion = _onto(scan.lesion, canvas, 0)
        with _collecting(found):
            _check_lesion_inside(lesion, brain, mask)
        label = np.ascontiguousarray(lesion[crop], dtype=np.uint8)
        native_mask = np.ascontiguousarray(
            from_ras(scan.lesion.voxels, scan.native_grid), dtype=np.uint8
        )
    channels = np.stack([image[crop] for image in on_canvas])
    for sequence, channel in zip(sequences, channels, strict=True):
        with _collecting(found):
            normalise(channel, brain[crop], _name(images, sequence))
    _raise(found)
    return PreparedCase(
        images=channels,
        mask=label,
        native_grid=scan.native_grid,
        native_mask=native_mask,
        canvas=canvas,
        crop_start=start,
    )


def _canvas(native_grid: Grid, spacing_mm: tuple[float, float, float] | None) -> Grid:
    grid = native_grid.in_ras_order()
    if spacing_mm is None or np.allclose(
        grid.spacing_mm, spacing_mm, rtol=SPACING_TOLERANCE, atol=0
    ):
        return grid
    return grid.with_spacing(spacing_mm)


def _read_scan(
    files: Mapping[str, Path],
    *,
    sequences: Sequence[str],
    mask: Path | None,
    lesion_labels: LesionLabels,
    reference: str | None,
    faults: Sequence[str],
) -> _Scan:
    """Read all files of a case, reporting together what is wrong with any of them."""
    if reference is not None and reference not in sequences:
        raise ValueError(f"reference must be one of {list(sequences)}, got {reference!r}")
    found = list(faults) or _missing_sequences(files, sequences)
    images: dict[str, Volume] = {}
    native_grids: dict[str, Grid] = {}
    lesion = None
    for sequence in sequences:
        if sequence in files:
            with _collecting(found):
                native = read_volume(files[sequence])
                native_grids[sequence] = native.grid
                images[sequence] = _without_background(native, _name(files, sequence))
    if mask is not None:
        with _collecting(found):
            lesion = read_lesion(mask, lesion_labels)
    base = reference or next(iter(native_grids), None)
    if base not in native_grids:
        raise CaseError("; ".join(found))
    base_grid = native_grids[base].in_ras_order()
    if reference is None:
        found.extend(_grid_faults(base, base_grid, images))
    if lesion is not None and not lesion.grid.matches(base_grid):
        found.append(
            f"{mask}: the lesion mask must be on the grid of {base}, which is {base_grid}; "
            f"got {lesion.grid}"
        )
    _raise(found)
    return _Scan(images=images, lesion=lesion, native_grid=native_grids[base])


def _without_background(native: Volume, name: str) -> Volume:
    ras = to_ras(native)
    return Volume(voxels=without_background(ras.voxels, name), grid=ras.grid)


def read_lesion(path: Path, lesion_labels: LesionLabels) -> Volume:
    """Read a lesion from a NIfTI file of labels.

    Args:
        path: The file.
        lesion_labels: As for `prepare_case`.

    Returns:
        (X, Y, Z) bool in RAS+ order.

    Raises:
        CaseError: When the file cannot be read or holds other labels.
    """
    labels = to_ras(read_volume(path))
    present = np.unique(labels.voxels[labels.voxels != 0])
    shown = ", ".join(f"{label:g}" for label in present[:_LABELS_SHOWN])
    if len(present) > _LABELS_SHOWN:
        shown += f" and {len(present) - _LABELS_SHOWN} more"
    if np.any(np.abs(present - np.rint(present)) > _LABEL_TOLERANCE) or np.any(present < 0):
        raise CaseError(
            f"{path}: a mask must hold whole numbers from 0, got {shown}; "
            "was it interpolated, or is it an image?"
        )
    if lesion_labels == "binary" and np.any(np.rint(present) != 1):
        raise CaseError(
            f"{path}: a mask must hold 0 and 1 only, got {shown} besides 0; set "
            "data.lesion_labels to `any` or to the list of labels that are lesion"
        )
    wanted = lesion_labels if isinstance(lesion_labels, tuple) else np.rint(present)
    lesion = np.isin(np.rint(labels.voxels), wanted)
    return Volume(voxels=lesion, grid=labels.grid)


def _name(files: Mapping[str, Path], sequence: str) -> str:
    return f"{files[sequence]}: sequence {sequence}"


def _missing_sequences(files: Mapping[str, Path], sequences: Sequence[str]) -> list[str]:
    there = ", ".join(f"{name} ({path})" for name, path in files.items()) or "none"
    return [f"sequence {name} is missing, got {there}" for name in sequences if name not in files]


def _grid_faults(base: str, base_grid: Grid, images: Mapping[str, Volume]) -> list[str]:
    return [
        f"sequence {name} must be on the grid of {base}, which is {base_grid}; got {image.grid}; "
        "register the sequences, or set preparation.reference (predict: --reference)"
        for name, image in images.items()
        if not image.grid.matches(base_grid)
    ]


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
    resampled: NDArray[Any] = _onto(image, grid, 1) * _onto(foreground, grid, 0)
    return resampled


def _onto(volume: Volume, grid: Grid, order: Literal[0, 1]) -> NDArray[Any]:
    return volume.voxels if volume.grid.matches(grid) else resample(volume, grid, order).voxels


@contextmanager
def _collecting(faults: list[str]) -> Iterator[None]:
    """Note a case's fault and go on, so that all are reported at once."""
    try:
        yield
    except CaseError as error:
        faults.append(str(error))


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise CaseError("; ".join(faults))
