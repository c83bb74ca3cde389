"""Segmenting one case with a bundle, and knowing again what was segmented before.

What is written for a case, `imaging.derivatives` names. A case is *done* when its files are all
there and its sidecar says that this bundle made them of these files. A case of that name that was
made of other files is taken for another patient's, and never replaced unasked.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from strokeseg.ensemble.vote import Ensemble, segment
from strokeseg.errors import CaseError, UserError, shown
from strokeseg.imaging.cases import Case, is_case_name, natural_name_order
from strokeseg.imaging.derivatives import CaseFiles, files_of, mask_sidecar
from strokeseg.imaging.lesions import lesion_volumes_mm3
from strokeseg.imaging.metrics import MM3_PER_ML
from strokeseg.imaging.prepared import PreparedCase, prepare_case
from strokeseg.imaging.quality_picture import write_quality_picture
from strokeseg.imaging.uncertainty import disagreement
from strokeseg.imaging.volume import write_map, write_mask
from strokeseg.imaging.voting import Decision
from strokeseg.records.config import NotNegative
from strokeseg.records.record import parse_values
from strokeseg.storage.files import file_sha256, read_json, write_json

# The mask's sidecar, wherever the case's name and session put it.
_SIDECARS = "sub-*/**/anat/*_desc-strokeseg_mask.json"


def _check_name(case: str) -> str:
    if not is_case_name(case):
        raise ValueError("must be the name of a case")
    return case


class _VersionsUsed(TypedDict):
    strokeseg: str


class _Sidecar(TypedDict):
    """What a mask's sidecar says, as far as it is read again."""

    Case: Annotated[str, AfterValidator(_check_name)]
    LesionVolumeMl: NotNegative
    LesionCount: Annotated[int, Field(ge=0)]
    SourceSha256: dict[str, str]
    Reference: str | None
    Runtime: str
    BundleSha256: str
    Versions: _VersionsUsed


@dataclass(frozen=True, kw_only=True, eq=False)
class Tool:
    """What segments.

    Attributes:
        ensemble: The bundle's.
        bundle: The bundle's file or folder.
        bundle_sha256: The hash by which it is known again.
        runtime: The package that computes the networks.
        code_version: Of this program.
        reference: Sequence onto whose grid the others are resampled; None to insist that
            they share one.
    """

    ensemble: Ensemble
    bundle: Path
    bundle_sha256: str
    runtime: str
    code_version: str
    reference: str | None


@dataclass(frozen=True, kw_only=True)
class CasePrediction:
    """The prediction of one case.

    Attributes:
        lesion_ml: Volume of all lesions.
        lesions: How many there are.
        files: Where it is written.
        runtime: The package that computed the networks.
        code_version: Of the program that found it.
        bundle_sha256: The hash of the bundle that found it.
        done_before: Whether it was there already, rather than found just now.
    """

    lesion_ml: float
    lesions: int
    files: CaseFiles
    runtime: str
    code_version: str
    bundle_sha256: str
    done_before: bool = False

    def __str__(self) -> str:
        """The prediction in words."""
        if not self.lesions:
            return "no lesion found"
        return f"{self.lesion_ml:.2f} ml in {self.lesions} lesion{'s' * (self.lesions > 1)}"


def predict_case(tool: Tool, case: Case, output: Path) -> CasePrediction:
    """Segment a case and write what was found.

    Args:
        output: Folder of the derivatives.

    Raises:
        CaseError: When the case's files are not as they must be.
        UserError: When a file cannot be written.
    """
    record = tool.ensemble.record
    prepared = prepare_case(
        case.images,
        sequences=record.sequences,
        reference=tool.reference,
        spacing_mm=record.spacing_mm,
        faults=case.faults,
    )
    decision = segment(tool.ensemble, prepared)
    volumes_ml = lesion_volumes_mm3(decision.mask, prepared.native_grid.spacing_mm) / MM3_PER_ML
    files = files_of(output, case.name)
    # Without it the case is not done, should this command end while it replaces the files.
    files.sidecar.unlink(missing_ok=True)
    prediction = CasePrediction(
        lesion_ml=float(volumes_ml.sum()),
        lesions=len(volumes_ml),
        files=files,
        runtime=tool.runtime,
        code_version=tool.code_version,
        bundle_sha256=tool.bundle_sha256,
    )
    _write(tool, case, prepared, decision, prediction)
    largest_ml = float(volumes_ml.max(initial=0))
    write_json(files.sidecar, _sidecar(tool, case, prediction, largest_ml))
    return prediction


def find_done(tool: Tool, case: Case, output: Path) -> CasePrediction | None:
    """Return what an earlier command found in a case, or None when it is not done.

    Raises:
        CaseError: When the case of that name there was made of other files.
        UserError: When the files there were made by another bundle, or are no prediction.
    """
    files = files_of(output, case.name)
    if not files.sidecar.is_file():
        return None
    sidecar = read_json(files.sidecar)
    there = sidecar if isinstance(sidecar, dict) else {}
    if there.get("BundleSha256") != tool.bundle_sha256:
        raise UserError(
            f"{files.sidecar}: case {case.name} was segmented with another bundle "
            f"({shown(there.get('Bundle', 'unknown'))}); give another --output, or replace it with "
            "--overwrite"
        )
    if case.faults:
        return None
    parsed = _parse(there, files.sidecar)
    sources, hashes = parsed["SourceSha256"], _hashes(case)
    # A file that is missing now is no sign of another patient: segmenting will name it.
    if other := [name for name, sha256 in hashes.items() if sources.get(name) != sha256]:
        raise CaseError(
            f"{files.sidecar}: a case of this name was made of other files ({', '.join(other)} "
            "differ); give this one another name (named files: another --case), give another "
            "--output, or replace it with --overwrite"
        )
    same = sources == hashes and parsed["Reference"] == tool.reference
    if not same or not all(path.is_file() for path in files.all()):
        return None
    return _prediction(parsed, files)


def find_segmented(output: Path) -> dict[str, CasePrediction]:
    """Return what was found in every case whose mask is in a folder, whichever bundle made it.

    Args:
        output: Folder of the derivatives.

    Returns:
        The predictions by the cases' names, in natural order.

    Raises:
        UserError: When a sidecar there is none of a prediction.
    """
    found: dict[str, CasePrediction] = {}
    for path in output.glob(_SIDECARS):
        there = _parse(read_json(path), path)
        files = files_of(output, there["Case"])
        if files.sidecar == path and files.mask.is_file():
            found[there["Case"]] = _prediction(there, files)
    return {name: found[name] for name in sorted(found, key=natural_name_order)}


def _parse(values: Any, path: Path) -> _Sidecar:
    remedy = "move it away, or segment its case with --overwrite"
    sidecar: _Sidecar = parse_values(_Sidecar, values, str(path), remedy)
    return sidecar


def _prediction(sidecar: _Sidecar, files: CaseFiles) -> CasePrediction:
    return CasePrediction(
        lesion_ml=sidecar["LesionVolumeMl"],
        lesions=sidecar["LesionCount"],
        files=files,
        runtime=sidecar["Runtime"],
        code_version=sidecar["Versions"]["strokeseg"],
        bundle_sha256=sidecar["BundleSha256"],
        done_before=True,
    )


def _write(
    tool: Tool, case: Case, prepared: PreparedCase, decision: Decision, prediction: CasePrediction
) -> None:
    files, grid = prediction.files, prepared.native_grid
    # Compression takes most of the time here, and leaves Python to others meanwhile.
    with ThreadPoolExecutor() as threads:
        writing = [
            threads.submit(write_map, files.probability, decision.probability, grid),
            threads.submit(
                write_map, files.uncertainty, disagreement(decision.axis_probabilities), grid
            ),
            threads.submit(write_mask, files.mask, decision.mask, grid),
        ]
        write_quality_picture(
            files.picture,
            prepared.images,
            prepared.project(decision.mask),
            sequences=tool.ensemble.record.sequences,
            spacing_mm=prepared.spacing_mm,
            caption=f"{case.name}: {prediction}",
        )
    for written in writing:
        written.result()


def _sidecar(
    tool: Tool, case: Case, prediction: CasePrediction, largest_ml: float
) -> dict[str, Any]:
    record = tool.ensemble.record
    return mask_sidecar(
        list(case.images.values()),
        Case=case.name,
        LesionVolumeMl=prediction.lesion_ml,
        LesionCount=prediction.lesions,
        LargestLesionMl=largest_ml,
        Sequences=list(record.sequences),
        SourceSha256=_hashes(case),
        Reference=tool.reference,
        Bundle=tool.bundle.name,
        BundleSha256=tool.bundle_sha256,
        Experiment=record.name,
        Rule=record.rule.model_dump(mode="json"),
        Runtime=tool.runtime,
        Versions=_versions(tool),
    )


def _versions(tool: Tool) -> dict[str, str]:
    packages: Sequence[str] = ("nibabel", tool.runtime)
    return {
        "strokeseg": tool.code_version,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{package: version(package) for package in packages},
    }


def _hashes(case: Case) -> dict[str, str]:
    return {name: file_sha256(path) for name, path in case.images.items() if path.is_file()}
