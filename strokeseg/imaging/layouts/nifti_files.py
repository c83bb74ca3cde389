"""NIfTI files in folders: which there are, and whether there is one where one must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_ENDINGS = (".nii", ".nii.gz")


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files right in a folder, in order of their names; none where it is missing."""
    return sorted(file for file in folder.glob("*") if is_nifti(file))


def is_nifti(file: Path) -> bool:
    """Whether a file is named like a NIfTI file."""
    # macOS leaves ._<name>.nii.gz beside each file of an unpacked archive.
    return file.name.casefold().endswith(_ENDINGS) and not file.name.startswith(".")


def stem_of(file: Path) -> str:
    """The name of a NIfTI file without its ending."""
    ending = ".nii.gz" if file.name.casefold().endswith(".nii.gz") else ".nii"
    return file.name[: -len(ending)]


def only_file(found: Sequence[Path], what: str, folder: Path, faults: list[str]) -> Path | None:
    """Return the file when there is exactly one, else note a fault.

    Args:
        found: The files, in `folder` or below it.
        what: What the file is, for the fault.
        folder: Where it was looked for.
        faults: Takes the fault.
    """
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(file.relative_to(folder)) for file in found)
        faults.append(f"{what} must be one file in {folder}, got {len(found)} ({names})")
    else:
        faults.append(f"{what} is missing in {folder}")
    return None
