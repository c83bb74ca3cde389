"""A scan: the files of a case, read and checked to belong together.

Nothing is mended in silence: what does not fit is a fault, and a case's faults are reported
together. The *native* grid is that of the files; with a *reference* sequence, that of its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from strokeseg.errors import CaseError
from strokeseg.imaging.brain import without_background
from strokeseg.imaging.volume import Grid, Volume, read_volume, to_ras

LesionLabels: TypeAlias = Literal["binary", "any"] | tuple[int, ...]

# Labels come out of float32 scaling factors such as 1/255 a little off.
_LABEL_TOLERANCE = 1e-3
_LABELS_SHOWN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A case as read, in RAS+ order.

    Attributes:
        images: By sequence, (X, Y, Z) float32 with background 0.
        lesion: (X, Y, Z) bool on the native grid in RAS+ order, or None.
        native_grid: The grid of the reference sequence's file, or of the first sequence's.
    """

    images: Mapping[str, Volume]
    lesion: Volume | None
    native_grid: Grid


def read_scan(
    files: Mapping[str, Path],
    *,
    sequences: Sequence[str],
    mask: Path | None,
    lesion_labels: LesionLabels,
    reference: str | None,
    faults: Sequence[str],
) -> Scan:
    """Read all files of a case; the arguments are those of `prepared.prepare_case`.

    Raises:
        CaseError: With all that is wrong with any of the files, or between them.
    """
    if reference is not None and reference not in sequences:
        raise ValueError(f"reference must be one of {list(sequences)}, got {reference!r}")
    found = list(faults) or _missing_sequences(files, sequences)
    images: dict[str, Volume] = {}
    native_grids: dict[str, Grid] = {}
    lesion = None
    given = [sequence for sequence in sequences if sequence in files]
    # Decompression, which is most of it, keeps nobody from running.
    with ThreadPoolExecutor(max(1, len(given))) as pool:
        waiting = {name: pool.submit(_read_sequence, files, name) for name in given}
    for sequence, reading in waiting.items():
        with collecting(found):
            native_grids[sequence], images[sequence] = reading.result()
    if mask is not None:
        with collecting(found):
            lesion = read_lesion(mask, lesion_labels)
    base = reference or next(iter(native_grids), None)
    if base not in native_grids:
        raise CaseError("; ".join(found))
    base_grid = native_grids[base].in_ras_order()
    if reference is None:
        found.extend(_grid_faults(files, base, base_grid, images))
    if lesion is not None and not lesion.grid.matches(base_grid):
        found.append(
            f"{mask}: the lesion mask must be on the grid of {base}, which is {base_grid}; "
            f"got {lesion.grid}"
        )
    raise_all(found)
    return Scan(images=images, lesion=lesion, native_grid=native_grids[base])


def _read_sequence(files: Mapping[str, Path], sequence: str) -> tuple[Grid, Volume]:
    """Return a file's grid, and its volume in RAS+ order without background."""
    native = read_volume(files[sequence])
    ras = to_ras(native)
    voxels = without_background(ras.voxels, file_and_sequence(files, sequence))
    return native.grid, Volume(voxels=voxels, grid=ras.grid)


def read_lesion(path: Path, lesion_labels: LesionLabels) -> Volume:
    """Read a lesion from a NIfTI file of labels.

    Args:
        lesion_labels: `binary` when it must hold 0 and 1 only, `any` when every label above 0
            is lesion, or the labels that are lesion.

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


def file_and_sequence(files: Mapping[str, Path], sequence: str) -> str:
    """Name a sequence and its file, for errors."""
    return f"{files[sequence]}: sequence {sequence}"


def _missing_sequences(files: Mapping[str, Path], sequences: Sequence[str]) -> list[str]:
    there = ", ".join(f"{name} ({path})" for name, path in files.items()) or "none"
    return [f"sequence {name} is missing, got {there}" for name in sequences if name not in files]


def _grid_faults(
    files: Mapping[str, Path], base: str, base_grid: Grid, images: Mapping[str, Volume]
) -> list[str]:
    return [
        f"{file_and_sequence(files, name)} must be on the grid of {base}, which is {base_grid}; "
        f"got {image.grid}; register the sequences, or set preparation.reference (predict: "
        "--reference)"
        for name, image in images.items()
        if not image.grid.matches(base_grid)
    ]


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Note a case's fault and go on, so that all are reported at once."""
    try:
        yield
    except CaseError as error:
        faults.append(str(error))


def raise_all(faults: Sequence[str]) -> None:
    """Raise what was collected, if anything was.

    Raises:
        CaseError: With all faults.
    """
    if faults:
        raise CaseError("; ".join(faults))
