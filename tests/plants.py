"""Scans that name a person wherever a file has room for it.

The *plants* are words that stand for a person's name: in every free field of the scans' NIfTI
headers, in the name of the folder that holds them, and in the names of the cases.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel

FIELDS = {
    "descrip": "PlantDescrip",
    "db_name": "PlantDbName",
    "aux_file": "PlantAuxFile",
    "intent_name": "PlantIntent",
    "data_type": "PlantType",
}
COMMENT, FOLDER, CASE = "PlantComment", "PlantFolder", "PlantCase"
HEADER = (*FIELDS.values(), COMMENT)


def write_planted_cases(folder: Path, cases: Path) -> Path:
    """Copy cases into a planted folder below another one, and return it."""
    scans = folder / FOLDER / "cases"
    shutil.copytree(cases, scans)
    for path in scans.rglob("*.nii"):
        _plant(path)
    for case in list(scans.iterdir()):
        if case.is_dir():
            case.rename(scans / f"{CASE}{case.name}")
    return scans


def _plant(path: Path) -> None:
    image = nibabel.load(path, mmap=False)
    for field, word in FIELDS.items():
        # Fields are as short as 10 bytes; the word's beginning will do there.
        image.header[field] = word.encode()[: image.header[field].dtype.itemsize or 10]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", COMMENT.encode()))
    nibabel.save(image, path)
