"""The layout of BIDS: a folder a subject, and in it the folders of data types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strokeseg.imaging.cases import Case
from strokeseg.imaging.layouts.bids_files import BidsFile, find_session_cases, is_own

_MASK_SUFFIXES = frozenset({"mask", "roi", "dseg"})
_LESION_LABELS = frozenset({"l", "lesion"})


def find_bids_cases(folder: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Find cases in the layout of BIDS.

    A case is a session, `sub-*/[ses-*/]<data type>/*_<suffix>.nii[.gz]`; which suffix holds a
    sequence, `sequence_names` says. Its mask, in the same folders or under `derivatives/`, has
    the suffix `mask`, `roi` or `dseg` and says that it shows the lesion: `label-L`,
    `label-lesion`, or a description with `lesion` in it.

    Args:
        folder: The data set, its `rawdata`, or one subject's folder.
        masks: Whether a case without a mask is at fault; if not, masks are ignored.

    Returns:
        The cases in natural order of their names; the patient is the subject.

    Raises:
        UserError: When there is no such folder, or no subject in it.
    """
    return find_session_cases(
        folder,
        sequences,
        masks=masks,
        flat=False,
        is_mask=_is_mask,
        expected="sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz",
    )


def _is_mask(file: BidsFile) -> bool:
    if file.suffix.casefold() not in _MASK_SUFFIXES or is_own(file):
        return False
    description = file.entities.get("desc", "").casefold()
    return file.entities.get("label", "").casefold() in _LESION_LABELS or "lesion" in description
