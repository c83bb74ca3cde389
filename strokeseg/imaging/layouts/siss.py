"""The layout of ISLES 2015 SISS: a folder a case, in it a folder a volume."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case, is_case_name, natural_order
from strokeseg.imaging.layouts.nifti_files import nifti_files, only_file

# A folder of SISS: VSD.Brain.XX.O.MR_Flair.70019, truth VSD.Brain_3more.XX.O.OT.70021.
_SISS_VOLUME = re.compile(r"VSD\..*\.(?:MR_(?P<sequence>[^.]+)|(?P<mask>OT))\.\d+", re.IGNORECASE)
_LEVELS_ABOVE_CASES = 2


def find_siss_cases(folder: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Find cases in the layout of ISLES 2015 SISS.

    A case is a folder of folders `VSD.Brain.XX.O.MR_<sequence>.<id>` and, for the mask,
    `VSD.Brain….OT.<id>`, each with one NIfTI file. Case folders lie in `folder` or one
    level deeper; `folder` may also be a case itself. Other files are ignored.

    Args:
        sequences: Sequences to find, compared without regard to case, but exactly.
        masks: Whether a case without a mask is at fault; if not, masks are ignored.

    Returns:
        The cases in natural order of their names; the patient is the case.

    Raises:
        UserError: When there is no such folder, no case in it, or a case name twice or one that
            cannot name files.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    folders = list(_siss_case_folders(folder, _LEVELS_ABOVE_CASES))
    if not folders:
        raise UserError(
            f"{folder}: holds no case in SISS layout; expected folders such as "
            f"{folder.name}/1/VSD.Brain.XX.O.MR_{sequences[0]}.70017/ with a .nii or .nii.gz file"
        )
    cases: dict[str, Path] = {}
    for case_folder in folders:
        name = case_folder.name or case_folder.resolve().name
        if not is_case_name(name):
            raise UserError(
                f"{case_folder}: a case's folder must be named with letters, digits, blanks and "
                ". _ + - only; rename it"
            )
        if name in cases:
            raise UserError(
                f"{folder}: two cases are named {name} ({cases[name]} and {case_folder}); "
                "give a folder that holds one set of cases only"
            )
        cases[name] = case_folder
    found = [_siss_case(name, path, sequences, masks) for name, path in cases.items()]
    return sorted(found, key=natural_order)


def holds_siss_cases(folder: Path) -> bool:
    """Whether there is a case in this layout, as far as names tell."""
    return next(_siss_case_folders(folder, _LEVELS_ABOVE_CASES), None) is not None


def _siss_case_folders(folder: Path, levels: int) -> Iterator[Path]:
    children = [child for child in folder.iterdir() if child.is_dir()]
    if any(_SISS_VOLUME.fullmatch(child.name) for child in children):
        yield folder
    elif levels:
        for child in children:
            yield from _siss_case_folders(child, levels - 1)


def _siss_case(name: str, folder: Path, sequences: Sequence[str], masks: bool) -> Case:
    files: dict[str, list[Path]] = {}
    for child in sorted(folder.iterdir()):
        match = _SISS_VOLUME.fullmatch(child.name)
        if match and child.is_dir():
            kind = "mask" if match["mask"] else f"sequence {match['sequence'].casefold()}"
            files.setdefault(kind, []).extend(nifti_files(child))
    faults: list[str] = []
    images = {}
    for sequence in sequences:
        found = files.get(f"sequence {sequence.casefold()}", [])
        if file := only_file(found, f"sequence {sequence}", folder, faults):
            images[sequence] = file
    mask = only_file(files.get("mask", []), "lesion mask (OT)", folder, faults) if masks else None
    return Case(name=name, patient=name, images=images, mask=mask, faults=tuple(faults))
