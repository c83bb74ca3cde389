"""Detecting the layout of cases, and finding them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case
from strokeseg.imaging.layouts.bids import find_bids_cases
from strokeseg.imaging.layouts.bids_files import find_sessions
from strokeseg.imaging.layouts.isles22 import find_isles22_cases, looks_like_isles22
from strokeseg.imaging.layouts.manifest import read_manifest
from strokeseg.imaging.layouts.nifti_files import is_nifti
from strokeseg.imaging.layouts.nnunet import find_nnunet_cases, holds_nnunet_cases
from strokeseg.imaging.layouts.siss import find_siss_cases, holds_siss_cases

Layout: TypeAlias = Literal["siss", "isles22", "bids", "nnunet", "manifest"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
AUTO: Literal["auto"] = "auto"

_FIND: Mapping[Layout, Callable[..., list[Case]]] = {
    "siss": find_siss_cases,
    "isles22": find_isles22_cases,
    "bids": find_bids_cases,
    "nnunet": find_nnunet_cases,
    "manifest": read_manifest,
}


def find_cases(
    path: Path,
    sequences: Sequence[str],
    *,
    layout: Layout | Literal["auto"] = AUTO,
    masks: bool = True,
) -> list[Case]:
    """Find cases.

    Args:
        path: A folder, or the CSV file of a manifest.
        layout: How the cases lie; `auto` tells it by the names of folders and files.
        masks: Whether a case without a mask is at fault; if not, masks are ignored.

    Returns:
        The cases in natural order of their names.

    Raises:
        UserError: When there is no such path, no case in it, its layout is unknown, or what
            the layout asks for is not kept.
    """
    if layout == AUTO:
        layout = detect_layout(path)
    if layout != "manifest" and path.is_file():
        raise UserError(f"{path}: must be a folder to hold cases in the layout {layout}")
    return _FIND[layout](path, sequences, masks=masks)


def detect_layout(path: Path) -> Layout:
    """Tell the layout by the names of folders and files; no image is opened.

    Raises:
        UserError: When there is no such path, or no layout or more than one fits.
    """
    if path.is_file():
        if is_nifti(path):
            raise UserError(f"{path}: is one image; name a case's files with --image, or a folder")
        return "manifest"
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; check the path")
    fitting: list[Layout] = []
    if holds_siss_cases(path):
        fitting.append("siss")
    if holds_nnunet_cases(path):
        fitting.append("nnunet")
    if next(find_sessions(path), None) is not None:
        fitting.append("isles22" if looks_like_isles22(path) else "bids")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"{path}: its layout could be {' or '.join(fitting)}; say which with --layout or "
            "data.layout"
        )
    raise UserError(
        f"{path}: holds no case in a layout that is known: SISS "
        "(1/VSD.Brain.XX.O.MR_T1.70017/*.nii), ISLES'22 or BIDS (sub-01/anat/sub-01_T1w.nii.gz), "
        "nnU-Net (imagesTr/case_0000.nii.gz); anything else needs a CSV manifest"
    )
