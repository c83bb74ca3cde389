"""Cases: one scan session of one patient each, as files on disk.

A *case* has one image file for every *sequence* (T1, T2, DWI, FLAIR, ...) and, where a
human has drawn it, the lesion *mask*. A *layout* is a way of laying out cases in folders:
ISLES 2015 SISS, or a *manifest*, a CSV file with one case a line.

This module finds the files and opens none of them. What is wrong with one case goes into
its `faults`, to be reported when the case is prepared; what is wrong with the whole is a
UserError.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.splits import is_side

# A folder of SISS: VSD.Brain.XX.O.MR_Flair.70019, truth VSD.Brain_3more.XX.O.OT.70021.
_SISS_VOLUME = re.compile(r"VSD\..*\.(?:MR_(?P<sequence>[^.]+)|(?P<mask>OT))\.\d+", re.IGNORECASE)
# The name of a case becomes the name of files and folders.
_CASE_NAME = re.compile(r"\w[\w .+-]*")
_LEVELS_ABOVE_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one scan session.

    Attributes:
        name: Unique among the cases; fit to name files.
        patient: Whose scan it is: the unit of splitting.
        images: One file for every sequence that was found.
        mask: The lesion mask, or nothing.
        fold: The side of the split that the data prescribe ("0", "1", ... or "test"), or
            nothing.
        faults: What is wrong with the case as far as file names tell: one sentence for
            every sequence or mask that is missing or there more than once.
    """

    name: str
    patient: str
    images: Mapping[str, Path]
    mask: Path | None
    fold: str | None = None
    faults: tuple[str, ...] = ()


def find_siss_cases(folder: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Find cases in the layout of ISLES 2015 SISS.

    A case is a folder of folders `VSD.Brain.XX.O.MR_<sequence>.<id>` and, for the mask,
    `VSD.Brain….OT.<id>`, each with one NIfTI file. Case folders lie in `folder` or one
    level deeper; `folder` may also be a case itself. Other files are ignored.

    Args:
        folder: Where to look.
        sequences: Sequences to find, compared without regard to case, but exactly.
        masks: Whether a case without a mask is at fault; if not, masks are ignored.

    Returns:
        The cases in natural order of their names; the patient is the case.

    Raises:
        UserError: When there is no such folder, no case in it, or a case name twice.
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
        if name in cases:
            raise UserError(
                f"{folder}: two cases are named {name} ({cases[name]} and {case_folder}); "
                "give a folder that holds one set of cases only"
            )
        cases[name] = case_folder
    found = [_siss_case(name, path, sequences, masks) for name, path in cases.items()]
    return sorted(found, key=lambda case: _natural_key(case.name))


def read_manifest(path: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Read cases from a CSV file (UTF-8, comma-separated, with a header).

    Columns: `case`; `patient`, or the case is its own patient; one for every sequence;
    `mask`; and `fold`, optional, with a fold's number or `test` in every line. Files are
    relative to the CSV file's folder. Other columns are ignored.

    Args:
        path: The CSV file.
        sequences: Sequences to find, by the exact names of their columns.
        masks: Whether the column `mask` is needed; if not, it is ignored.

    Returns:
        The cases in natural order of their names.

    Raises:
        UserError: When the file cannot be read, and, with every fault and its line at
            once, when columns are missing, cells are empty, case names repeat or cannot
            name a file, a file is named twice, or a fold is no fold.
    """
    columns = ["case", *sequences, *(["mask"] if masks else [])]
    lines = _read_lines(path, columns)
    optional = [name for name in ("patient", "fold") if name in next(iter(lines.values()))]
    faults: list[str] = []
    first_lines: dict[str, int] = {}
    for number, cells in lines.items():
        if empty := [name for name in (*columns, *optional) if not cells[name]]:
            faults.append(f"line {number}: {', '.join(empty)} must not be empty")
        name, fold = cells["case"], cells.get("fold")
        if name and not is_case_name(name):
            faults.append(
                f"line {number}: case must be letters, digits, blanks and . _ + - only, "
                f"got {name!r}"
            )
        if fold and not is_side(fold):
            faults.append(f"line {number}: fold must be 0, 1, ... or test, got {fold!r}")
        for column in columns:
            # Case names and files are different things, even where their text agrees.
            key = f"{'case' if column == 'case' else 'file'} {cells[column]}"
            if cells[column] and key in first_lines:
                faults.append(
                    f"line {number}: {column}: {key} is already in line {first_lines[key]}"
                )
            first_lines.setdefault(key, number)
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    cases = [
        Case(
            name=cells["case"],
            patient=cells.get("patient", cells["case"]),
            images={sequence: path.parent / cells[sequence] for sequence in sequences},
            mask=path.parent / cells["mask"] if masks else None,
            fold=cells.get("fold"),
        )
        for cells in lines.values()
    ]
    return sorted(cases, key=lambda case: _natural_key(case.name))


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
            files.setdefault(kind, []).extend(_nifti_files(child))
    faults: list[str] = []
    images = {}
    for sequence in sequences:
        found = files.get(f"sequence {sequence.casefold()}", [])
        if file := _only_file(found, f"sequence {sequence}", folder, faults):
            images[sequence] = file
    mask = _only_file(files.get("mask", []), "lesion mask (OT)", folder, faults) if masks else None
    return Case(name=name, patient=name, images=images, mask=mask, faults=tuple(faults))


def _nifti_files(folder: Path) -> list[Path]:
    # macOS leaves ._<name>.nii.gz beside each file of an unpacked archive.
    return sorted(
        file
        for file in folder.iterdir()
        if file.name.casefold().endswith((".nii", ".nii.gz")) and not file.name.startswith(".")
    )


def _only_file(found: list[Path], what: str, folder: Path, faults: list[str]) -> Path | None:
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(file.relative_to(folder)) for file in found)
        faults.append(f"{what} must be one file in {folder}, got {len(found)} ({names})")
    else:
        faults.append(f"{what} is missing in {folder}")
    return None


def _read_lines(path: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """The cells of every line by column, keyed by line number."""
    lines: dict[int, dict[str, str]] = {}
    faults: list[str] = []
    try:
        # utf-8-sig also takes the byte order mark that spreadsheets write.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    faults.append(
                        f"line {reader.line_num}: must have {len(header)} cells, got {len(cells)}"
                    )
                    continue
                values = (cell.strip() for cell in cells)
                lines[reader.line_num] = dict(zip(header, values, strict=True))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no CSV file in UTF-8 ({error})") from None
    if missing := [name for name in columns if name not in header]:
        faults.insert(0, f"columns {missing} are missing, line 1 has {header}")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        faults.insert(0, f"columns {repeated} are there more than once")
    if not lines and not faults:
        faults.append("holds no case below its header")
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    return lines


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Order in which 2 comes before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part.casefold())
        for part in re.split(r"(\d+)", name)
    ]


def is_case_name(name: str) -> bool:
    """Whether a name may name a case, and so files and folders."""
    return _CASE_NAME.fullmatch(name) is not None


def mask_name(case: str, description: str = "strokeseg") -> str:
    """The file name of a case's predicted mask, after BIDS derivatives.

    Args:
        case: Name of the case.
        description: What made the mask.
    """
    return f"sub-{case}_space-orig_label-L_desc-{description}_mask.nii.gz"
