"""BIDS derivatives: a data set of files that were made of cases.

A case's files lie in `sub-<label>/[ses-<label>/]anat/`. They are in the space of the case's own
files (`space-orig`). A *sidecar* is a JSON file beside a mask that says what it is and what it
was made of. BIDS has no suffix yet for a map of uncertainty; ours is `uncertainty`.

Source: Brain Imaging Data Structure, specification 1.10, "BIDS derivatives".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError
from strokeseg.imaging.cases import MAKER, bids_name, derivative_name, mask_name
from strokeseg.storage.files import read_json, write_json

_DESCRIPTION_JSON = "dataset_description.json"
_BIDS_VERSION = "1.10.0"


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where the files that are made of one case go.

    Attributes:
        mask: The lesion, uint8.
        probability: Of lesion, float32, 0 to 1.
        uncertainty: Disagreement between the axes, float32, 0 to 1.
        picture: For a human to look at.
        sidecar: What the mask is; written last, so that all others are there when it is.
    """

    mask: Path
    probability: Path
    uncertainty: Path
    picture: Path
    sidecar: Path

    def all(self) -> tuple[Path, ...]:
        """The files in the order in which they are written."""
        return self.mask, self.probability, self.uncertainty, self.picture, self.sidecar


def files_of(folder: Path, case: str) -> CaseFiles:
    """Say where a case's files go in a data set.

    Args:
        case: Name of the case.
    """
    name = bids_name(case)
    place = folder.joinpath(*name.split("_"), "anat")
    mask = place / mask_name(case)
    return CaseFiles(
        mask=mask,
        probability=place / derivative_name(case, MAKER, "probseg.nii.gz"),
        uncertainty=place / derivative_name(case, MAKER, "uncertainty.nii.gz"),
        picture=place / derivative_name(case, MAKER, "quality.png"),
        sidecar=mask.with_name(mask.name.replace(".nii.gz", ".json")),
    )


def mask_sidecar(sources: Sequence[Path], **details: Any) -> dict[str, Any]:
    """Say what a predicted mask is.

    Args:
        sources: The files that it was made of; their folders' names may say whose they are, and
            stay out.
        details: Further entries.
    """
    return {
        "Type": "Lesion",
        "Manual": False,
        "SpatialReference": "orig",
        "Sources": [path.name for path in sources],
        **details,
    }


def refuse_scans(folder: Path) -> None:
    """Make sure that a folder is none of scans, which derivatives must not be mixed with.

    Args:
        folder: Where derivatives are to go; need not be there.

    Raises:
        UserError: When it describes itself as another data set.
    """
    path = folder / _DESCRIPTION_JSON
    if not path.is_file():
        return
    there = read_json(path)
    if not isinstance(there, dict) or there.get("DatasetType") != "derivative":
        raise UserError(
            f"{path}: describes a data set that is no derivative; give --output a folder of its "
            "own, such as derivatives/strokeseg in it"
        )


def describe_dataset(folder: Path, *, name: str, version: str, made_by: str) -> None:
    """Write the description of a data set of derivatives; one that is there is replaced.

    Args:
        version: Version of this program.
        made_by: What made the files, in words.

    Raises:
        UserError: When it cannot be written.
    """
    generated_by = {"Name": "strokeseg", "Version": version, "Description": made_by}
    description = {
        "Name": name,
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generated_by],
    }
    write_json(folder / _DESCRIPTION_JSON, description)
