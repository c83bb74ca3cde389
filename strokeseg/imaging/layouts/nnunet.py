"""The layout of nnU-Net's raw data sets: a file a sequence, known by its number.

A *data set* is a folder with `dataset.json`, which names the sequences, and the folders
`imagesTr` and `labelsTr` (training) and `imagesTs` (test). A case `X` is the files
`imagesTr/X_0000.nii.gz`, `X_0001.nii.gz`, ... and `labelsTr/X.nii.gz`. `splits_final.json`, where
it lies there too, says what each fold validates.

Source: nnU-Net v2, documentation/dataset_format.md; names of version 1 are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError, shown
from strokeseg.imaging.cases import Case, is_case_name, natural_order
from strokeseg.imaging.layouts.nifti_files import nifti_files, only_file, stem_of
from strokeseg.imaging.layouts.sequence_names import is_sequence
from strokeseg.storage.files import read_json

DATASET_JSON, SPLITS_JSON = "dataset.json", "splits_final.json"
_CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_NUMBER = re.compile(r"[0-9]{1,4}")
_IMAGES = ("imagesTr", "imagesTs")


def find_nnunet_cases(folder: Path, sequences: Sequence[str], *, masks: bool = True) -> list[Case]:
    """Find cases in the layout of nnU-Net's raw data sets.

    Args:
        folder: A data set, or, when masks are ignored, also a folder of images in one.
        sequences: Sequences to find by the names in `dataset.json`; see `sequence_names`.
        masks: Whether to find the cases of `imagesTr` with their masks, and the folds of
            `splits_final.json` where it is there. If not, masks are ignored and the cases are
            those of `imagesTs`, or of `imagesTr` where there are none.

    Returns:
        The cases in natural order of their names; the patient is the case.

    Raises:
        UserError: When there is no such folder, no case in it, `dataset.json` is missing or
            does not name every sequence, or the folds do not fit the cases.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    images, files = _images(folder, masks)
    root = folder if (folder / DATASET_JSON).is_file() else folder.parent
    channels = _channels(root / DATASET_JSON, sequences)
    masks_folder = root / "labelsTr" if masks else None
    folds = _folds(root / SPLITS_JSON, set(files)) if masks else {}
    cases = [
        _case(name, found, images, channels, masks_folder, folds.get(name))
        for name, found in files.items()
    ]
    return sorted(cases, key=natural_order)


def holds_nnunet_cases(folder: Path) -> bool:
    """Whether there is a case in this layout, as far as names tell."""
    return any(_by_case(place) for place in (folder, *(folder / name for name in _IMAGES)))


def _images(folder: Path, masks: bool) -> tuple[Path, dict[str, dict[int, Path]]]:
    """The folder of images, and in it the files by case and channel."""
    names = ("imagesTr",) if masks else ("imagesTs", "imagesTr")
    for place in (*(folder / name for name in names), *(() if masks else (folder,))):
        if files := _by_case(place):
            return place, files
    raise UserError(
        f"{folder}: holds no case in nnU-Net's raw layout; expected files such as "
        f"{names[0]}/case_0000.nii.gz beside {DATASET_JSON}"
    )


def _by_case(folder: Path) -> dict[str, dict[int, Path]]:
    files: dict[str, dict[int, Path]] = {}
    for path in nifti_files(folder):
        match = _CHANNEL_FILE.fullmatch(stem_of(path))
        if match and is_case_name(match["case"]):
            files.setdefault(match["case"], {})[int(match["channel"])] = path
    return files


def _channels(path: Path, sequences: Sequence[str]) -> dict[str, int]:
    """The channel of every sequence."""
    described = read_json(path)
    # Version 1 called them modalities.
    described = described if isinstance(described, dict) else {}
    named: Any = described.get("channel_names", described.get("modality"))
    if not isinstance(named, dict) or not all(_NUMBER.fullmatch(str(number)) for number in named):
        raise UserError(
            f'{path}: must name the sequences, such as {{"channel_names": {{"0": "T1"}}}}'
        )
    names = {int(number): shown(name) for number, name in named.items()}
    found = {
        sequence: [number for number, name in names.items() if is_sequence(name, sequence)]
        for sequence in sequences
    }
    if faulty := [sequence for sequence, numbers in found.items() if len(numbers) != 1]:
        raise UserError(
            f"{path}: channel_names must name each sequence once, but {', '.join(faulty)} not so; "
            f"it names {shown(', '.join(names.values()))}"
        )
    return {sequence: numbers[0] for sequence, numbers in found.items()}


def _folds(path: Path, cases: set[str]) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        validated = [[str(name) for name in fold["val"]] for fold in read_json(path)]
    except (TypeError, KeyError):
        raise UserError(f"{path}: must be a list of folds with train and val") from None
    folds = {name: str(number) for number, names in enumerate(validated) for name in names}
    if set(folds) != cases or sum(map(len, validated)) != len(cases):
        raise UserError(
            f"{path}: every case of imagesTr must be in the val of one fold, "
            f"{len(folds)} of {len(cases)} are; mend it, or remove it to draw folds"
        )
    return folds


def _case(
    name: str,
    files: Mapping[int, Path],
    folder: Path,
    channels: Mapping[str, int],
    masks_folder: Path | None,
    fold: str | None,
) -> Case:
    faults: list[str] = []
    images = {}
    for sequence, channel in channels.items():
        found = [files[channel]] if channel in files else []
        what = f"sequence {sequence} ({name}_{channel:04d})"
        if image := only_file(found, what, folder, faults):
            images[sequence] = image
    mask = None
    if masks_folder is not None:
        drawn = [path for path in nifti_files(masks_folder) if stem_of(path) == name]
        mask = only_file(drawn, f"lesion mask ({name})", masks_folder, faults)
    return Case(name=name, patient=name, images=images, mask=mask, fold=fold, faults=tuple(faults))
