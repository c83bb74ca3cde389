"""Simulated stroke cases on disk, in the layout of ISLES 2015 SISS.

A *phantom* is a simulated case: real anatomy (the ICBM152 2009a brain), a subject, scanner
and lesion of its own. It stands in for data in the demo, the tests and the benchmarks; no
score reached on phantoms says anything about patients. The cases' volumes and contrasts,
and which have no lesion, come from a plan of the whole folder; everything else about case i
is drawn from `SeedSequence([seed, i])`, so that equal seeds give equal bytes in any number
of processes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np

from strokeseg.errors import UserError
from strokeseg.phantoms.anatomy import Anatomy, draw_anatomy
from strokeseg.phantoms.confounders import draw_confounders
from strokeseg.phantoms.findings import Finding
from strokeseg.phantoms.lesions import draw_lesion
from strokeseg.phantoms.plan import CasePlan, draw_plan
from strokeseg.phantoms.scanner import scan
from strokeseg.process.child_processes import child_processes

GENERATOR_VERSION = 1
SEQUENCE_TAGS = {"T1": "MR_T1", "T2": "MR_T2", "DWI": "MR_DWI", "FLAIR": "MR_Flair"}
EXTENT_MM = (230, 230, 154)
SPACINGS_MM = (0.7, 6.0)


def write_phantoms(
    folder: Path,
    *,
    cases: int,
    spacing_mm: float,
    seed: int,
    lesion_free_share: float = 0.0,
    workers: int = 1,
    on_case: Callable[[str], None] | None = None,
) -> None:
    """Write simulated cases 1 to `cases`, all of them or, after any fault, none.

    Every case has T1, T2, DWI and FLAIR (int16, background 0, brain at least 1), a mask
    (uint8, 0 and 1) and `simulation.json`, on one grid of isotropic voxels whose axes run
    Left, Posterior, Superior. `phantom.json` beside the cases says how they came about.

    Args:
        folder: Where to; must not exist yet.
        spacing_mm: Voxel size; 1 gives SISS's 230 x 230 x 154 voxels.
        seed: Equal seeds give equal bytes, whatever `workers`.
        lesion_free_share: Share of the cases, rounded to whole cases, without a lesion.
        workers: Processes that share the work.
        on_case: Called with the name of every case that is done, in no particular order.

    Raises:
        UserError: A setting is out of range, `folder` exists, or it cannot be written.
    """
    _check(cases, spacing_mm, seed, lesion_free_share, workers)
    plans = draw_plan(cases, seed=seed, lesion_free_share=lesion_free_share)
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex}")
    try:
        if folder.exists():
            raise UserError(
                f"phantoms are written into a new folder, but {folder} exists: "
                "remove it or name another"
            )
        partial.mkdir(parents=True)
        # Closed before the folder goes: a process still at work would write it again.
        with closing(_write_all(partial, plans, spacing_mm, seed, workers)) as done:
            for name in done:
                if on_case is not None:
                    on_case(name)
        _write_json(
            partial / "phantom.json",
            {
                "cases": cases,
                "spacing_mm": float(spacing_mm),
                "seed": seed,
                "lesion_free_share": float(lesion_free_share),
                "generator_version": GENERATOR_VERSION,
            },
        )
        partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"phantoms cannot be written to {folder}: {error}; free or name another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(
    cases: int, spacing_mm: float, seed: int, lesion_free_share: float, workers: int
) -> None:
    low, high = SPACINGS_MM
    faults = [
        f"{name} must be {rule}, not {value}"
        for name, value, rule, fine in (
            ("cases", cases, "at least 1", cases >= 1),
            ("spacing_mm", spacing_mm, f"from {low} to {high}", low <= spacing_mm <= high),
            ("seed", seed, "0 or more", seed >= 0),
            ("lesion_free_share", lesion_free_share, "from 0 to 1", 0 <= lesion_free_share <= 1),
            ("workers", workers, "at least 1", workers >= 1),
        )
        if not fine
    ]
    if faults:
        raise UserError("phantoms cannot be made: " + "; ".join(faults))


def _write_all(
    folder: Path, plans: Sequence[CasePlan], spacing_mm: float, seed: int, workers: int
) -> Generator[str, None, None]:
    """Write all cases, yielding each one's name when it is done."""
    if workers == 1:
        for plan in plans:
            yield _write_case(folder, plan, spacing_mm, seed)
        return
    with child_processes(min(workers, len(plans))) as pool:
        tasks = [pool.submit(_write_case, folder, plan, spacing_mm, seed) for plan in plans]
        for task in as_completed(tasks):
            yield task.result()


def _write_case(folder: Path, plan: CasePlan, spacing_mm: float, seed: int) -> str:
    """Simulate one case and write its folder; returns its name."""
    name = str(plan.number)
    streams = np.random.SeedSequence([seed, plan.number]).spawn(4 + len(SEQUENCE_TAGS))
    body, stroke, confusion, place, *scanners = map(np.random.default_rng, streams)

    anatomy = draw_anatomy(body, spacing_mm)
    mask = np.zeros(anatomy.brain.shape, dtype=bool)
    lesion: dict[str, object] | None = None
    findings: list[Finding] = []
    if plan.volume_ml is not None:
        mask, findings, lesion = draw_lesion(stroke, anatomy, plan.volume_ml, plan.contrast)
    confounders, looks_like = draw_confounders(confusion, anatomy, mask)

    volumes = {"VSD.Brain_3more.XX.O.OT": mask.astype(np.uint8)}
    acquisition: dict[str, object] = {}
    for scanner, (sequence, tag) in zip(scanners, SEQUENCE_TAGS.items(), strict=True):
        image, drawn = scan(scanner, anatomy, [*confounders, *findings], sequence)
        volumes[f"VSD.Brain.XX.O.{tag}"] = image
        acquisition[sequence] = drawn
    shape, corner = _place(place, anatomy)
    affine_ras = _affine_ras(anatomy, corner)
    for number, (kind, voxels) in enumerate(volumes.items(), start=10 * plan.number):
        whole = _embed(voxels, shape, corner)
        _write_volume(folder / name, f"{kind}.{number}", whole, affine_ras)
    _write_json(
        folder / name / "simulation.json",
        {
            "case": plan.number,
            "lesion_ml": round(float(mask.sum()) * spacing_mm**3 / 1000, 4),
            "lesion": lesion,
            "anatomy": anatomy.choices,
            "confounders": looks_like,
            "acquisition": acquisition,
        },
    )
    return name


def _place(
    generator: np.random.Generator, anatomy: Anatomy
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The whole grid's shape, and where in it the anatomy's first voxel lies, near its centre."""
    shape = tuple(round(extent / anatomy.spacing_mm) for extent in EXTENT_MM)
    corner = []
    for length, part in zip(shape, anatomy.brain.shape, strict=True):
        away = round(float(generator.uniform(-4, 4)) / anatomy.spacing_mm)
        # The anatomy's margin of two voxels may hang over the edge by one.
        corner.append(min(max((length - part) // 2 + away, -1), max(length - part + 1, -1)))
    return shape, tuple(corner)


def _affine_ras(anatomy: Anatomy, corner: Sequence[int]) -> np.ndarray:
    """(4, 4) voxel to RAS+ mm for a grid whose axes run Left, Posterior, Superior."""
    signs = np.array([-1.0, -1.0, 1.0])
    first_mm = np.array([axis[0] for axis in anatomy.axes_mm])
    affine_ras = np.diag([*(signs * anatomy.spacing_mm), 1.0])
    affine_ras[:3, 3] = signs * (first_mm - np.array(corner) * anatomy.spacing_mm)
    return affine_ras


def _embed(part: np.ndarray, shape: Sequence[int], corner: Sequence[int]) -> np.ndarray:
    """`part` in a grid of zeros, its first voxel at `corner`; what hangs over is cut off."""
    whole = np.zeros(shape, dtype=part.dtype)
    into = tuple(
        slice(max(start, 0), min(start + length, end))
        for start, length, end in zip(corner, part.shape, shape, strict=True)
    )
    out_of = tuple(
        slice(target.start - start, target.stop - start)
        for target, start in zip(into, corner, strict=True)
    )
    whole[into] = part[out_of]
    return whole


def _write_volume(folder: Path, name: str, voxels: np.ndarray, affine_ras: np.ndarray) -> None:
    """Write one NIfTI file into a folder of its own, as the challenge ships them."""
    (folder / name).mkdir(parents=True)
    image = nib.Nifti1Image(voxels, affine_ras)
    image.set_qform(affine_ras, code=1)
    image.set_sform(affine_ras, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / name / f"{name}.nii")


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
