"""The simulated stroke: its mask, and how it shows.

The *lesion* is the stroke to be found and the *mask* says where it is. Its signal follows
the mask only roughly: a core, a paler rim, a soft border that wanders, in some subjects
islands that look normal (fogging) or dark patches of blood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit

from strokeseg.phantoms.anatomy import Anatomy
from strokeseg.phantoms.fields import smooth_field
from strokeseg.phantoms.findings import Finding, Range, grow_territory, rounded

MIN_LESION_VOXELS = 6
LARGEST_SHARE_OF_SIDE = 0.45


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Ranges of the lesion's gains, sequence by sequence."""

    dwi: Range
    flair: Range
    t2: Range
    t1: Range


CONTRASTS = {
    "subtle": Contrast(dwi=(0.5, 0.7), flair=(0.24, 0.34), t2=(0.26, 0.4), t1=(-0.14, -0.08)),
    "moderate": Contrast(dwi=(0.7, 1.05), flair=(0.34, 0.5), t2=(0.4, 0.56), t1=(-0.18, -0.1)),
    "strong": Contrast(dwi=(1.0, 1.4), flair=(0.5, 0.72), t2=(0.54, 0.76), t1=(-0.22, -0.14)),
}


def draw_lesion(
    generator: np.random.Generator, anatomy: Anatomy, volume_ml: float, contrast: str
) -> tuple[np.ndarray, list[Finding], dict[str, object]]:
    """Draw the stroke.

    Args:
        volume_ml: Volume aimed at; limited to what one side of the brain can hold, and to
            no fewer than `MIN_LESION_VOXELS` voxels.
        contrast: A key of `CONTRASTS`.

    Returns:
        The mask, (X, Y, Z) bool, its findings, and what was drawn.
    """
    side = int(generator.choice((-1, 1)))
    tissue = anatomy.parenchyma & (side * anatomy.template_mm[0] > 1.5)
    count = round(volume_ml * 1000 / anatomy.spacing_mm**3)
    count = int(np.clip(count, MIN_LESION_VOXELS, LARGEST_SHARE_OF_SIDE * tissue.sum()))
    satellites = int(generator.choice((0, 1, 2, 3), p=(0.55, 0.2, 0.15, 0.1)))
    reach, radius_mm = grow_territory(generator, anatomy, tissue, count, satellites)
    mask = _without_crumbs(reach < 1)
    findings, choices = _lesion_findings(generator, anatomy, reach, radius_mm, contrast)
    choices |= {
        "contrast": contrast,
        "aimed_ml": round(volume_ml, 3),
        "side": "right" if side > 0 else "left",
        "satellites": satellites,
    }
    return mask, findings, choices


def _without_crumbs(mask: np.ndarray) -> np.ndarray:
    """A mask without the 26-connected components below a fiftieth of its largest one."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= sizes.max() / 50)[labels])


def _lesion_findings(
    generator: np.random.Generator,
    anatomy: Anatomy,
    reach: np.ndarray,
    radius_mm: float,
    contrast: str,
) -> tuple[list[Finding], dict[str, object]]:
    """The stroke's signal: a core, a paler rim, uneven within, its border not quite the mask's."""
    ranges = CONTRASTS[contrast]
    # What readers find among small strokes is what thick slices and blur did not wash out.
    visibility = 1 + 2 / radius_mm
    gains = {
        "T1": visibility * generator.uniform(*ranges.t1),
        "T2": visibility * generator.uniform(*ranges.t2),
        "DWI": visibility * generator.uniform(*ranges.dwi),
        "FLAIR": visibility * generator.uniform(*ranges.flair),
    }
    rim = float(generator.uniform(0.5, 0.8))
    core = float(generator.uniform(0.5, 0.85))
    unevenness = float(generator.uniform(0.1, 0.25))
    edge = float(np.clip(generator.uniform(0.5, 1.0) / radius_mm, 0.02, 0.15))
    fogging, bleeding = (
        bool(generator.random() < chance) and radius_mm > 8 for chance in (0.3, 0.15)
    )

    wander = 0.07 * smooth_field(generator, anatomy.axes_mm, 6.0)
    presence = expit((1 + wander - reach) / edge)
    presence *= rim + (1 - rim) * expit((core + 2 * wander - reach) / 0.12)
    presence *= np.clip(1 + unevenness * smooth_field(generator, anatomy.axes_mm, 9.0), 0.3, 1.7)
    patches = smooth_field(generator, anatomy.axes_mm, 10.0)
    if fogging:
        presence *= 1 - 0.6 * expit((patches - 1.2) / 0.1)
    presence *= 1 - anatomy.shares["csf"]
    findings = [Finding(presence=presence, gains=gains)]
    if bleeding:
        blood = presence * expit((-patches - 1.2) / 0.1) * expit((0.7 - reach) / 0.1)
        dark = {"T1": 0.12, "T2": -0.5, "DWI": -0.8, "FLAIR": -0.3}
        findings.append(Finding(presence=blood, gains=dark))
    return findings, {
        "gains": rounded(gains),
        "rim": round(rim, 3),
        "core": round(core, 3),
        "unevenness": round(unevenness, 3),
        "fogging": fogging,
        "bleeding": bleeding,
    }
