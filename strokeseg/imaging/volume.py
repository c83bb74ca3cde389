"""Volumes: voxels and where they lie in the patient.

A *grid* is a lattice of voxels in space: its shape and the affine that takes voxel
indices (i, j, k) to millimetres. Millimetres are always *RAS+*: x grows to the patient's
Right, y to Anterior, z to Superior. A grid is *in RAS+ order* when its voxel axes run
nearest to these directions too. The *native* grid is the one a file came with. A *volume*
is an array of voxels on a grid.

This module reads and writes volumes and takes them from one grid to another.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from scipy import ndimage

from strokeseg.errors import CaseError
from strokeseg.imaging.nifti_content import nifti_class, read_nifti_content
from strokeseg.storage.files import replacing_file

Shape = tuple[int, int, int]

# nibabel ships types for some of its functions; a strict checker refuses the others.
_nibabel: Any = nibabel

# Headers are written in single precision and by programs that round differently.
GRID_TOLERANCE_VOXELS = 0.1
_MIN_DETERMINANT = 1e-3
# What scanners make is 0.1 to 50 mm; beyond that the unit is another, or the header nonsense.
_VOXEL_SIDE_MM = (0.01, 100.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A lattice of voxels in space.

    Attributes:
        shape: Number of voxels along the axes (X, Y, Z).
        affine_ras: (4, 4) float64, from voxel indices to millimetres in RAS+.
    """

    shape: Shape
    affine_ras: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along the grid's own axes."""
        x, y, z = np.linalg.norm(self.affine_ras[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def matches(self, other: Grid) -> bool:
        """Whether both are the same lattice, up to a tenth of a voxel at every corner."""
        if self.shape != other.shape:
            return False
        corners = np.array(
            [(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in self.shape))]
        )
        offsets_mm = corners @ (self.affine_ras - other.affine_ras).T
        tolerance_mm = GRID_TOLERANCE_VOXELS * min(self.spacing_mm)
        return bool(np.linalg.norm(offsets_mm, axis=1).max() <= tolerance_mm)

    def in_ras_order(self) -> Grid:
        """The same lattice with its axes permuted and flipped nearest to RAS+."""
        orientation = _nibabel.orientations.io_orientation(self.affine_ras)
        shape = [0, 0, 0]
        for side, axis in zip(self.shape, orientation[:, 0].astype(int), strict=True):
            shape[axis] = side
        affine = self.affine_ras @ _nibabel.orientations.inv_ornt_aff(orientation, self.shape)
        return Grid(shape=(shape[0], shape[1], shape[2]), affine_ras=affine)

    def with_spacing(self, spacing_mm: tuple[float, float, float]) -> Grid:
        """A grid of another voxel size that starts at the same outer corner and covers this."""
        ratio = np.array(spacing_mm) / np.array(self.spacing_mm)
        # A sliver of less than a hundredth of a voxel is rounding, not tissue.
        sides = np.maximum(1, np.ceil(np.array(self.shape) / ratio - 0.01)).astype(int)
        step = np.diag([*ratio, 1.0])
        step[:3, 3] = (ratio - 1) / 2
        return Grid(
            shape=(int(sides[0]), int(sides[1]), int(sides[2])), affine_ras=self.affine_ras @ step
        )

    def __str__(self) -> str:
        """The grid in one line, for errors."""
        sides = " x ".join(str(side) for side in self.shape)
        spacing = " x ".join(f"{step:.4g}" for step in self.spacing_mm)
        axes = "".join(_nibabel.aff2axcodes(self.affine_ras))
        origin = ", ".join(f"{position:.4g}" for position in self.affine_ras[:3, 3])
        return f"{sides} voxels of {spacing} mm, axes {axes}, origin ({origin}) mm"


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxels on a grid.

    Attributes:
        voxels: Array of the grid's shape (X, Y, Z).
        grid: Where the voxels lie.
    """

    voxels: NDArray[Any]
    grid: Grid


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, compressed or not, with its intensity scaling applied.

    A fourth axis of length 1 is dropped. Compressed files are read to their checksum.

    Returns:
        A volume on the file's native grid; voxels (X, Y, Z) float32, finite.

    Raises:
        CaseError: When the file is missing, empty, truncated, damaged or no NIfTI file,
            when it is not three-dimensional, holds values that are no finite real
            numbers, or says nothing usable of where its voxels lie.
    """
    content = read_nifti_content(path)
    kind = nifti_class(path, content)
    try:
        image = kind.from_bytes(content)
        shape, affine = image.shape, np.asarray(image.affine, dtype=np.float64)
        data_type, start = image.get_data_dtype(), int(image.dataobj.offset)
    except (HeaderDataError, ImageFileError, WrapStructError, ValueError, OverflowError) as error:
        raise CaseError(f"{path}: its header is damaged ({_one_line(error)})") from None
    if data_type.kind not in "biuf":
        raise CaseError(f"{path}: voxels must be real numbers, got {data_type}")
    sides = shape[:3] if all(side == 1 for side in shape[3:]) else shape
    if len(sides) != 3 or min(sides) < 1:
        raise CaseError(
            f"{path}: must be one three-dimensional volume, got shape {shape}; give one volume of "
            "a series, such as the trace image of a DWI"
        )
    # Before anything of the header's size is allocated: headers lie.
    expected_bytes = start + int(np.prod(sides, dtype=object)) * data_type.itemsize
    if expected_bytes > len(content):
        raise CaseError(
            f"{path}: is truncated (its header promises {expected_bytes} bytes, "
            f"it holds {len(content)}); copy it again"
        )
    grid = Grid(shape=(int(sides[0]), int(sides[1]), int(sides[2])), affine_ras=affine)
    _check_affine(path, grid)
    # Values beyond float32 become infinite, and are refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(grid.shape)
    _check_finite(path, voxels)
    return Volume(voxels=voxels, grid=grid)


def write_mask(path: Path, mask: NDArray[np.generic], grid: Grid) -> None:
    """Write a mask as NIfTI (uint8), with the grid in both of its transforms.

    Args:
        path: File to write, `.nii` or `.nii.gz`; appears complete or not at all.
        mask: (X, Y, Z) of 0 and 1 on `grid`.
        grid: Where the voxels lie.

    Raises:
        ValueError: When the mask has not the grid's shape.
        UserError: When the folder cannot be written to.
    """
    _write(path, mask.astype(np.uint8), grid)


def write_map(path: Path, values: NDArray[np.float32], grid: Grid) -> None:
    """Write a map as NIfTI (float32), with the grid in both of its transforms.

    Args:
        path: File to write, `.nii` or `.nii.gz`; appears complete or not at all.
        values: (X, Y, Z) on `grid`.
        grid: Where the voxels lie.

    Raises:
        ValueError: When the map has not the grid's shape.
        UserError: When the folder cannot be written to.
    """
    _write(path, values.astype(np.float32), grid)


def _write(path: Path, voxels: NDArray[Any], grid: Grid) -> None:
    if voxels.shape != grid.shape:
        raise ValueError(f"voxels must have their grid's shape {grid.shape}, got {voxels.shape}")
    image = _nibabel.Nifti1Image(voxels, grid.affine_ras)
    image.set_sform(grid.affine_ras, code="scanner")
    image.set_qform(grid.affine_ras, code="scanner")
    image.header.set_xyzt_units("mm")
    with replacing_file(path) as temporary:
        image.to_filename(temporary)


def to_ras(volume: Volume) -> Volume:
    """The volume with its axes permuted and flipped nearest to RAS+; no value changes."""
    orientation = _nibabel.orientations.io_orientation(volume.grid.affine_ras)
    voxels = _nibabel.orientations.apply_orientation(volume.voxels, orientation)
    return Volume(voxels=voxels, grid=volume.grid.in_ras_order())


def from_ras(voxels: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Undo `to_ras`.

    Args:
        voxels: Array on `grid.in_ras_order()`.

    Returns:
        The same values on the native grid.
    """
    ras_order = _nibabel.orientations.axcodes2ornt("RAS")
    native_order = _nibabel.orientations.io_orientation(grid.affine_ras)
    back = _nibabel.orientations.ornt_transform(ras_order, native_order)
    return np.asarray(_nibabel.orientations.apply_orientation(voxels, back))


def resample(volume: Volume, grid: Grid, order: Literal[0, 1]) -> Volume:
    """Bring a volume onto another grid; what lies outside the volume is 0.

    Args:
        volume: Its values fade to 0 beyond its border, so 0 must mean background.
        grid: The grid to fill.
        order: 0 takes the nearest voxel (masks), 1 interpolates linearly (images).

    Returns:
        A volume on `grid`, of the same dtype.
    """
    to_source = np.linalg.inv(volume.grid.affine_ras) @ grid.affine_ras
    voxels = ndimage.affine_transform(
        volume.voxels, to_source, output_shape=grid.shape, order=order, mode="grid-constant"
    )
    return Volume(voxels=voxels, grid=grid)


def voxels_on(volume: Volume, grid: Grid, order: Literal[0, 1]) -> NDArray[Any]:
    """Return a volume's voxels on a grid: its own where it lies there already, else resampled.

    Args:
        volume: As for `resample`.
        grid: Where they are wanted.
        order: As for `resample`.
    """
    return volume.voxels if volume.grid.matches(grid) else resample(volume, grid, order).voxels


def _check_affine(path: Path, grid: Grid) -> None:
    usable = bool(np.isfinite(grid.affine_ras).all()) and min(grid.spacing_mm) > 0
    if usable:
        directions = grid.affine_ras[:3, :3] / np.array(grid.spacing_mm)
        # 1 for perpendicular axes, 0 when one axis is spanned by the others.
        usable = bool(abs(np.linalg.det(directions)) > _MIN_DETERMINANT)
    if not usable:
        raise CaseError(
            f"{path}: its affine must map voxels to millimetres one to one, got rows "
            f"{grid.affine_ras[:3].tolist()}; mend the header (sform or qform)"
        )
    lowest, highest = _VOXEL_SIDE_MM
    if min(grid.spacing_mm) < lowest or max(grid.spacing_mm) > highest:
        sides = " x ".join(f"{side:.4g}" for side in grid.spacing_mm)
        raise CaseError(
            f"{path}: its voxels must measure {lowest:g} to {highest:g} mm a side, got {sides}; "
            "mend the header (sform or qform), whose unit must be millimetres"
        )


def _check_finite(path: Path, voxels: NDArray[np.float32]) -> None:
    faulty = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
    if faulty:
        raise CaseError(
            f"{path}: every voxel must be a finite number, {faulty} of {voxels.size} are not "
            "(NaN, infinite or beyond float32); replace them by the background"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
