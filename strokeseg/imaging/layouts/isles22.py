"""The layout of ISLES'22: BIDS, but for where the files of a session lie and the masks' names.

Source: Hernandez Petzsche et al., "ISLES 2022: A multi-center magnetic resonance imaging stroke
lesion segmentation dataset", Scientific Data 9 (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strokeseg.imaging.cases import Case
from strokeseg.imaging.layouts.bids_files import (
    BidsFile,
    find_session_cases,
    find_sessions,
    is_own,
)
from strokeseg.imaging.layouts.nifti_files import nifti_files

_MASK_SUFFIX = "msk"


def find_isles22_cases(folder: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Find cases in the layout of ISLES'22.

    A case is a session, `[rawdata/]sub-strokecase0001/ses-0001/[dwi/]…_dwi.nii.gz`, its mask
    `derivatives/…/…_msk.nii.gz`. FLAIR has a grid of its own there: training on it with the
    others needs `preparation.reference`.

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
        flat=True,
        is_mask=_is_mask,
        expected="sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_dwi.nii.gz",
    )


def looks_like_isles22(folder: Path) -> bool:
    """Whether the first session of a data set has ISLES'22's ways rather than those of BIDS."""
    session = next(find_sessions(folder), None)
    if session is None:
        return False
    if nifti_files(session.folder):
        return True
    roots = (folder, folder.parent)
    drawn = (path for root in roots for path in (root / "derivatives").rglob("sub-*_msk.nii*"))
    return next(drawn, None) is not None


def _is_mask(file: BidsFile) -> bool:
    return file.suffix.casefold() == _MASK_SUFFIX and not is_own(file)
