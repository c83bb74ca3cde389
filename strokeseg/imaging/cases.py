"""Cases: one scan session of one patient each, as files on disk.

A *case* has one image file for every *sequence* (T1, T2, DWI, FLAIR, ...) and, where a
human has drawn it, the lesion *mask*. How cases lie in folders is for `layouts` to say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Who files made of cases say they were made by.
MAKER = "strokeseg"
# The name of the test set, beside the numbers of the folds.
TEST = "test"

# The name of a case becomes the name of files and folders.
_CASE_NAME = re.compile(r"\w[\w .+-]*")
_BIDS_NAME = re.compile(r"sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?")
_HASH_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of one scan session.

    Attributes:
        name: Unique among the cases; fit to name files.
        patient: Whose scan it is: the unit of splitting.
        images: One file for every sequence that was found.
        mask: The lesion mask, or None.
        fold: The subset of the split that the data prescribe ("0", "1", ... or "test"), or
            None.
        faults: What is wrong with the case as far as file names tell: one sentence for
            every sequence or mask that is missing or there more than once.
    """

    name: str
    patient: str
    images: Mapping[str, Path]
    mask: Path | None
    fold: str | None = None
    faults: tuple[str, ...] = ()


def is_subset_name(name: str) -> bool:
    """Whether a name is "test" or the number of a fold as it is written here."""
    return name == TEST or (name.isascii() and name.isdigit() and str(int(name)) == name)


def is_case_name(name: str) -> bool:
    """Whether a name may name a case, and so files and folders."""
    return _CASE_NAME.fullmatch(name) is not None


def natural_order(case: Case) -> list[tuple[int, str]]:
    """A key for sorting cases by their names, by which 2 comes before 10."""
    return natural_name_order(case.name)


def natural_name_order(name: str) -> list[tuple[int, str]]:
    """A key for sorting the names of cases, by which 2 comes before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part.casefold())
        for part in re.split(r"(\d+)", name)
    ]


def bids_name(case: str) -> str:
    """How files that are made of a case begin, after BIDS: `sub-<label>[_ses-<label>]`.

    Labels are letters and digits only. Where others are dropped, some digits of a hash keep
    names apart.

    Args:
        case: Name of the case.
    """
    if _BIDS_NAME.fullmatch(case):
        return case
    label = re.sub("[^A-Za-z0-9]", "", case)
    digest = hashlib.sha256(case.encode()).hexdigest()[:_HASH_DIGITS]
    return f"sub-{label}" if label == case else f"sub-{label}{digest}"


def mask_name(case: str, description: str = MAKER) -> str:
    """The file name of a case's predicted mask, after BIDS derivatives.

    Args:
        case: Name of the case.
        description: What made the mask.
    """
    return derivative_name(case, description, "mask.nii.gz")


def derivative_name(case: str, description: str, suffix: str) -> str:
    """The name of a file that is made of a case, in the case's own space, after BIDS derivatives.

    Args:
        case: Name of the case.
        description: What made the file.
        suffix: What it holds, with the ending.
    """
    return f"{bids_name(case)}_space-orig_label-L_desc-{description}_{suffix}"
