"""What looks like a stroke in a simulated subject and is none.

*Confounders* are findings outside the mask: hyperintense white matter, shine-through spots,
an old cavity, and the brightening of DWI near the skull base and in some cortex. Each one
by itself resembles a stroke in some sequences, and none does in all four.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

from strokeseg.phantoms.anatomy import Anatomy
from strokeseg.phantoms.fields import smooth_field
from strokeseg.phantoms.findings import (
    Finding,
    Range,
    grow_territory,
    rounded,
    stretched_distance,
    voxel_place_mm,
)

SKULL_BASE_MM = ((14.0, 38.0, -24.0), (44.0, -8.0, -40.0), (40.0, -55.0, -42.0))
Drawn = tuple[list[Finding], dict[str, object]]


def draw_confounders(generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray) -> Drawn:
    """Draw what looks like a stroke and is none.

    Args:
        lesion: (X, Y, Z) bool, the stroke's mask; cavities and spots stay outside it.

    Returns:
        The findings, and what was drawn.
    """
    findings: list[Finding] = []
    choices: dict[str, object] = {}
    for draw in (_white_matter_load, _shine_through, _old_cavity, _skull_base, _bright_cortex):
        found, choice = draw(generator, anatomy, lesion)
        findings += found
        choices |= choice
    return findings, choices


def _white_matter_load(
    generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray
) -> Drawn:
    """Caps and bands round the ventricles and deep spots: bright on FLAIR and T2, not on DWI."""
    load = float(generator.uniform(0, 1))
    spots = int(generator.poisson(5 * load))
    level = 0.45 - 0.3 * load + 0.09 * smooth_field(generator, anatomy.axes_mm, 9.0)
    presence = expit((anatomy.ventricle - level) / 0.04)
    presence = np.maximum(presence, _spots(generator, anatomy, ~lesion, spots, (1.5, 4.5)))
    presence *= anatomy.shares["white"]
    gains = {
        "T1": float(generator.uniform(-0.12, -0.04)),
        "T2": float(generator.uniform(0.25, 0.5)),
        "DWI": float(generator.uniform(0.0, 0.12)),
        "FLAIR": float(generator.uniform(0.3, 0.55)),
    }
    record = {"load": round(load, 3), "deep_spots": spots, "gains": rounded(gains)}
    return [Finding(presence=presence, gains=gains)], {"white_matter": record}


def _shine_through(generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray) -> Drawn:
    """Spots of long T2 that are fairly bright on DWI too, and not dark on T1."""
    spots = int(generator.integers(1, 5))
    presence = _spots(generator, anatomy, ~lesion, spots, (2.5, 5.0))
    presence *= 1 - anatomy.shares["csf"]
    gain = float(generator.uniform(0.25, 0.55))
    gains = {"T1": 0.0, "T2": 0.5, "DWI": gain, "FLAIR": 0.45}
    record = {"spots": spots, "dwi_gain": round(gain, 3)}
    return [Finding(presence=presence, gains=gains)], {"shine_through": record}


def _spots(
    generator: np.random.Generator,
    anatomy: Anatomy,
    allowed: np.ndarray,
    count: int,
    radii_mm: Range,
) -> np.ndarray:
    """Presence of small round spots in white matter, (X, Y, Z) float32."""
    presence = np.zeros(anatomy.brain.shape, dtype=np.float32)
    voxels = np.argwhere(allowed & (anatomy.shares["white"] > 0.6))
    for _ in range(count):
        voxel = voxels[generator.integers(len(voxels))]
        radius_mm = generator.uniform(*radii_mm)
        stretch = np.exp(generator.normal(0, 0.25, 3))
        apart = stretched_distance(anatomy, voxel_place_mm(anatomy, voxel), stretch)
        spot = expit((radius_mm - apart) / 0.7)
        np.maximum(presence, spot, out=presence)
    return presence


def _old_cavity(generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray) -> Drawn:
    """In a third of the subjects an old infarct: a hole full of CSF in a rim bright on FLAIR."""
    if generator.random() > 1 / 3:
        return [], {"old_cavity": None}
    volume_ml = float(np.exp(generator.uniform(np.log(1.5), np.log(12))))
    tissue = anatomy.parenchyma & ~ndimage.binary_dilation(lesion, iterations=2)
    side = np.sign(generator.uniform(-1, 1))
    tissue &= side * anatomy.template_mm[0] > 1.5
    voxels = max(round(volume_ml * 1000 / anatomy.spacing_mm**3), 1)
    reach, radius_mm = grow_territory(generator, anatomy, tissue, voxels)
    edge = float(np.clip(0.8 / radius_mm, 0.05, 0.2))
    whole = expit((1 - reach) / edge)
    hole = expit((0.75 - reach) / edge)
    rim_gain = float(generator.uniform(0.28, 0.5))
    rim = {"T1": -0.15, "T2": 0.4, "DWI": 0.02, "FLAIR": rim_gain}
    record = {"volume_ml": round(volume_ml, 3), "rim_gain": round(rim_gain, 3)}
    return [
        Finding(presence=whole * (1 - anatomy.shares["csf"]), gains=rim),
        Finding(presence=hole, gains={}, replaces=True),
    ], {"old_cavity": record}


def _skull_base(generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray) -> Drawn:
    """DWI piles up signal where air meets bone: above the orbits and the petrous bones."""
    presence = np.zeros(anatomy.brain.shape, dtype=np.float32)
    gain = float(generator.uniform(0.3, 0.7))
    for right_mm, anterior_mm, superior_mm in SKULL_BASE_MM:
        for side in (-1, 1):
            place = np.array([side * right_mm, anterior_mm, superior_mm])
            place += generator.normal(0, 3.5, 3)
            width_mm = generator.uniform(6, 11, 3)
            strength = generator.uniform(0.2, 1.0)
            apart = np.zeros(presence.shape, dtype=np.float32)
            for row in range(3):
                apart += np.square((anatomy.template_mm[row] - place[row]) / width_mm[row])
            presence += np.float32(strength) * np.exp(-apart / 2)
    presence *= np.clip(1 + 0.4 * smooth_field(generator, anatomy.axes_mm, 8.0), 0, 2)
    presence *= 1 - anatomy.shares["csf"]
    return [Finding(presence=presence, gains={"DWI": gain})], {
        "skull_base": {"dwi_gain": round(gain, 3)}
    }


def _bright_cortex(generator: np.random.Generator, anatomy: Anatomy, lesion: np.ndarray) -> Drawn:
    """Stretches of cortex that are brighter on DWI, as insula and cingulate often are."""
    gain = float(generator.uniform(0.08, 0.22))
    stretches = np.clip(smooth_field(generator, anatomy.axes_mm, 22.0), 0, 1.3)
    finding = Finding(presence=stretches * anatomy.shares["grey"], gains={"DWI": gain})
    return [finding], {"bright_cortex": {"dwi_gain": round(gain, 3)}}
