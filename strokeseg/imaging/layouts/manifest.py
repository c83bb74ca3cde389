"""The manifest: a CSV file with one case a line, for cases in a layout of their own."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from strokeseg.errors import UserError, listed, shown
from strokeseg.imaging.cases import Case, is_case_name, is_subset_name, natural_order

_MOST_BYTES = 1 << 24
_LONGEST_CELL = 1000
_IN_LINE = re.compile(rf"[^\0-\x1f\x7f-\x9f\u2028\u2029]{{0,{_LONGEST_CELL}}}")


def read_manifest(path: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Read cases from a CSV file (UTF-8, comma-separated, with a header).

    Columns: `case`; `patient`, or the case is its own patient; one for every sequence;
    `mask`; and `fold`, optional, with a fold's number or `test` in every line. Files are
    relative to the CSV file's folder. Other columns are ignored.

    Args:
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
        if strange := [
            name for name in (*columns, *optional) if not _IN_LINE.fullmatch(cells[name])
        ]:
            faults.append(
                f"line {number}: {', '.join(strange)} must have at most {_LONGEST_CELL} "
                "characters, no line breaks and no others that cannot be seen"
            )
        name, fold = cells["case"], cells.get("fold")
        if name and not is_case_name(name):
            faults.append(
                f"line {number}: case must be letters, digits, blanks and . _ + - only, "
                f"got {shown(repr(name))}"
            )
        if fold and not is_subset_name(fold):
            faults.append(f"line {number}: fold must be 0, 1, ... or test, got {shown(repr(fold))}")
        for column in columns:
            # Case names and files are different things, even where their text agrees.
            key = f"{'case' if column == 'case' else 'file'} {cells[column]}"
            if cells[column] and key in first_lines:
                faults.append(
                    f"line {number}: {column}: {shown(key)} is already in line {first_lines[key]}"
                )
            first_lines.setdefault(key, number)
    if faults:
        raise UserError(f"{path}: {listed(faults)}")
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
    return sorted(cases, key=natural_order)


def _read_lines(path: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """The cells of every line by column, keyed by line number."""
    lines: dict[int, dict[str, str]] = {}
    faults: list[str] = []
    try:
        # utf-8-sig also takes the byte order mark that spreadsheets write.
        if path.stat().st_size > _MOST_BYTES or not path.is_file():
            raise UserError(f"{path}: must be a CSV file of at most {_MOST_BYTES} bytes")
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
        faults.insert(0, f"columns {missing} are missing, line 1 has {shown(repr(header))}")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        faults.insert(0, f"columns {shown(repr(repeated))} are there more than once")
    if not lines and not faults:
        faults.append("holds no case below its header")
    if faults:
        raise UserError(f"{path}: {listed(faults)}")
    return lines
