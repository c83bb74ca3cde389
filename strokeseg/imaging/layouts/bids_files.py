"""What BIDS data sets and those that resemble them have in common.

A *subject* is a patient, in a folder `sub-<label>`; a *session* is a case, in a folder
`ses-<label>` of the subject, or the subject's own folder where it has no sessions. The name of a
file is a row of *entities*, `<key>-<value>` joined by `_`, and a *suffix* that says what it holds:
`sub-01_ses-02_ce-gd_T1w.nii.gz`. *Derivatives* are files that were made of the others, lesion
masks among them, in a folder `derivatives` beside the subjects or beside their `rawdata`.

Source: Gorgolewski et al., "The brain imaging data structure", Scientific Data 3 (2016), and its
specification, version 1.10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.imaging.cases import Case, natural_order
from strokeseg.imaging.layouts.nifti_files import is_nifti, nifti_files, only_file, stem_of
from strokeseg.imaging.layouts.sequence_names import is_suffix
from strokeseg.imaging.slices import AXES

_SUBJECT = re.compile(r"sub-[A-Za-z0-9+]+")
_SESSION = re.compile(r"ses-[A-Za-z0-9+]+")
# What this program wrote itself must never be taken for the truth.
_OWN_DESCRIPTION = "strokeseg"
_OWN_METHODS = frozenset({"vote", *AXES})


@dataclass(frozen=True, kw_only=True)
class BidsFile:
    """A file whose name follows BIDS.

    Attributes:
        path: The file.
        entities: Values by key, such as `sub` and `ses`.
        suffix: What it holds, such as `T1w`.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """A subject's session, a case to be.

    Attributes:
        name: `sub-<label>` or `sub-<label>_ses-<label>`.
        subject: `sub-<label>`.
        folder: Where its files lie.
    """

    name: str
    subject: str
    folder: Path


def parse_name(path: Path) -> BidsFile | None:
    """Read the entities of a NIfTI file's name; None when it does not follow BIDS."""
    *pairs, suffix = stem_of(path).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if not is_nifti(path) or "sub" not in entities or len(entities) < len(pairs):
        return None
    return BidsFile(path=path, entities=entities, suffix=suffix)


def find_sessions(folder: Path) -> Iterator[Session]:
    """Find the sessions in a data set, in its `rawdata`, or in one subject's folder."""
    for subject in _subjects(folder):
        sessions = [child for child in _folders(subject) if _SESSION.fullmatch(child.name)]
        for session in sessions:
            name = f"{subject.name}_{session.name}"
            yield Session(name=name, subject=subject.name, folder=session)
        if not sessions:
            yield Session(name=subject.name, subject=subject.name, folder=subject)


def find_session_cases(
    folder: Path,
    sequences: Sequence[str],
    *,
    masks: bool,
    flat: bool,
    is_mask: Callable[[BidsFile], bool],
    expected: str,
) -> list[Case]:
    """Find a case in every session.

    Args:
        folder: A data set, its `rawdata`, or one subject's folder.
        sequences: Sequences to find; see `sequence_names`.
        masks: Whether a case without a mask is at fault; if not, masks are ignored.
        flat: Whether a session's files may lie in its folder itself, not only in the folders of
            data types (`anat`, `dwi`) in it.
        is_mask: Tells a lesion mask from other files.
        expected: What a file should be called, for the error.

    Returns:
        The cases in natural order of their names; the patient is the subject.

    Raises:
        UserError: When there is no such folder, or no session in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    sessions = list(find_sessions(folder))
    if not sessions:
        raise UserError(
            f"{folder}: holds no folder of a subject; expected files such as {expected}"
        )
    derived = list(_derivatives(folder)) if masks else []
    cases = []
    for session in sessions:
        files = list(_session_files(session, flat))
        faults: list[str] = []
        images = {}
        for sequence in sequences:
            found = [
                file.path
                for file in files
                if is_suffix(file.suffix, "ce" in file.entities, sequence) and not is_mask(file)
            ]
            if image := only_file(found, f"sequence {sequence}", session.folder, faults):
                images[sequence] = image
        mask = None
        if masks:
            drawn = [file for file in [*files, *derived] if is_mask(file)]
            of_session = [file.path for file in drawn if _is_of(file, session)]
            mask = only_file(of_session, "lesion mask", session.folder, faults)
        cases.append(
            Case(
                name=session.name,
                patient=session.subject,
                images=images,
                mask=mask,
                faults=tuple(faults),
            )
        )
    return sorted(cases, key=natural_order)


def is_own(file: BidsFile) -> bool:
    """Whether a file is a prediction of this program, by `predict` or by `evaluate`."""
    description = file.entities.get("desc", "")
    return description.startswith(_OWN_DESCRIPTION) or description in _OWN_METHODS


def _subjects(folder: Path) -> list[Path]:
    if _SUBJECT.fullmatch(folder.name):
        return [folder]
    for place in (folder, folder / "rawdata"):
        if found := [child for child in _folders(place) if _SUBJECT.fullmatch(child.name)]:
            return found
    return []


def _derivatives(folder: Path) -> Iterator[BidsFile]:
    root = folder.parent if _SUBJECT.fullmatch(folder.name) else folder
    places = [root / "derivatives"]
    if root.name == "rawdata":
        places.append(root.parent / "derivatives")
    for place in places:
        for path in sorted(place.rglob("sub-*.nii*")):
            if file := parse_name(path):
                yield file


def _session_files(session: Session, flat: bool) -> Iterator[BidsFile]:
    places = [*_folders(session.folder), *([session.folder] if flat else [])]
    for place in places:
        for path in nifti_files(place):
            if file := parse_name(path):
                yield file


def _is_of(file: BidsFile, session: Session) -> bool:
    subject = f"sub-{file.entities['sub']}"
    of_session = f"{subject}_ses-{file.entities.get('ses')}"
    # Without sessions, what a derivative calls the only session does not matter.
    return session.name == of_session or (session.name == session.subject == subject)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.glob("*") if child.is_dir())
