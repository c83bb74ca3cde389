"""Where disease appears in a simulated subject, and what it does to the signal there.

A *finding* is anything that changes the signal: a presence in each voxel, and what it adds
to each sequence, in units of white matter's signal. A *territory* is a compact piece of
tissue with a ragged border, such as a blocked artery leaves: grown from a *seed* voxel and
perhaps some satellites, its *reach* is the distance to the nearest of them, roughened by
smooth fields and scaled so that the territory ends at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from strokeseg.phantoms.anatomy import Anatomy
from strokeseg.phantoms.fields import smooth_field

MIDDLE_CEREBRAL_MM = (36.0, -8.0, 14.0)
MIDDLE_CEREBRAL_WIDTH_MM = 28.0
SEED_LARGEST_CSF = 0.15

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A change of signal.

    Attributes:
        presence: (X, Y, Z) float32, 0 where there is none of it.
        gains: Sequence -> signal added at presence 1, in units of white matter's.
        replaces: Whether tissue is lost: the signal moves to CSF's by the presence.
    """

    presence: np.ndarray
    gains: Mapping[str, float]
    replaces: bool = False


def grow_territory(
    generator: np.random.Generator,
    anatomy: Anatomy,
    tissue: np.ndarray,
    voxels: int,
    satellites: int = 0,
) -> tuple[np.ndarray, float]:
    """Grow one territory.

    Args:
        tissue: (X, Y, Z) bool, where it may grow; more than `voxels` of it.
        voxels: Size of the territory.
        satellites: Number of smaller seeds nearby.

    Returns:
        The reach, (X, Y, Z) float32: below 1 in exactly `voxels` voxels, infinite outside
        `tissue`. The radius in mm of a ball of the territory's volume.
    """
    radius_mm = float((3 * voxels / (4 * np.pi)) ** (1 / 3) * anatomy.spacing_mm)
    stretch = np.exp(generator.normal(0, 0.22, 3))
    seed = _draw_seed(generator, anatomy, tissue & (anatomy.shares["csf"] < SEED_LARGEST_CSF))
    reach = stretched_distance(anatomy, seed, stretch)
    for _ in range(satellites):
        direction = generator.normal(0, 1, 3)
        away_mm = radius_mm * generator.uniform(1.3, 2.2) + 4
        size = generator.uniform(0.25, 0.5)
        place = seed + away_mm * direction / np.linalg.norm(direction)
        np.minimum(reach, stretched_distance(anatomy, place, stretch) / np.float32(size), out=reach)
    coarse = smooth_field(generator, anatomy.axes_mm, float(np.clip(radius_mm, 7, 26)))
    fine = smooth_field(generator, anatomy.axes_mm, 5.0)
    # Without the offset, reach is near 0 around the seed and no field could move a border there.
    reach += np.float32(0.15 * radius_mm)
    reach *= np.exp(0.3 * coarse + 0.13 * fine)
    reach[~tissue] = np.inf
    end = np.partition(reach[tissue], voxels)[voxels]
    return np.asarray(reach / end), radius_mm


def stretched_distance(anatomy: Anatomy, centre_mm: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Distance to a point of the subject frame, (X, Y, Z) float32 in mm.

    Along axis i it is divided by `stretch[i]`, so that what grows by it is long there.
    """
    x, y, z = (
        np.square((axis - middle) / factor).astype(np.float32)
        for axis, middle, factor in zip(anatomy.axes_mm, centre_mm, stretch, strict=True)
    )
    return np.asarray(np.sqrt(x[:, None, None] + y[:, None] + z))


def voxel_place_mm(anatomy: Anatomy, voxel: np.ndarray) -> np.ndarray:
    """A voxel's centre in the subject frame, (3,) mm."""
    return np.array([axis[index] for axis, index in zip(anatomy.axes_mm, voxel, strict=True)])


def rounded(gains: Mapping[str, float]) -> dict[str, float]:
    """Gains as the record keeps them."""
    return {sequence: round(float(gain), 3) for sequence, gain in gains.items()}


def _draw_seed(generator: np.random.Generator, anatomy: Anatomy, tissue: np.ndarray) -> np.ndarray:
    """A voxel's place in `tissue`, (3,) mm, most often in the middle cerebral artery's reach."""
    right, anterior, superior = anatomy.template_mm[:, tissue].astype(np.float64)
    apart = np.square(np.abs(right) - MIDDLE_CEREBRAL_MM[0])
    apart += np.square(anterior - MIDDLE_CEREBRAL_MM[1])
    apart += np.square(superior - MIDDLE_CEREBRAL_MM[2])
    likelihood = 0.12 + np.exp(-apart / (2 * MIDDLE_CEREBRAL_WIDTH_MM**2))
    chosen = generator.choice(len(likelihood), p=likelihood / likelihood.sum())
    return voxel_place_mm(anatomy, np.argwhere(tissue)[chosen])
