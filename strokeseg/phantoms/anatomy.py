"""One simulated subject's anatomy: the ICBM152 2009a brain, posed, bent and aged at random.

The *template* is the tissue maps of that brain which nilearn ships; they are read through
nilearn and never copied. The *subject frame* is in mm with its axes running Left,
Posterior, Superior and the origin near the brain's centre; the *template frame* is MNI
space, in mm, Right, Anterior, Superior. *Shares* are the fractions of a voxel that are
fluid (CSF), grey matter and white matter.

Source: Fonov et al., NeuroImage 47 (2009) S102, ICBM 2009a nonlinear symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from strokeseg.phantoms.fields import Axes, smooth_field

TISSUES = ("csf", "grey", "white")
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
TEMPLATE_CENTRE_MM = np.array([0.0, -17.0, 5.0])
HALF_EXTENT_MM = (82.0, 100.0, 84.0)
VENTRICLES_MM = ((-28.0, 28.0), (-50.0, 35.0), (-5.0, 32.0))
FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One subject's tissues on a grid that just holds the brain.

    Attributes:
        axes_mm: Voxel centres along X, Y, Z in the subject frame, mm.
        spacing_mm: Isotropic voxel size.
        brain: (X, Y, Z) bool, what skull stripping keeps.
        shares: Tissue -> (X, Y, Z) float32 in [0, 1]; they sum to 1, outside the brain all CSF.
        ventricle: (X, Y, Z) float32 in [0, 1], nearness to the lateral ventricles.
        template_mm: (3, X, Y, Z) float32, each voxel's place in the template frame.
        choices: What was drawn, for the record.
    """

    axes_mm: Axes
    spacing_mm: float
    brain: np.ndarray
    shares: dict[str, np.ndarray]
    ventricle: np.ndarray
    template_mm: np.ndarray
    choices: dict[str, object]

    @property
    def parenchyma(self) -> np.ndarray:
        """(X, Y, Z) bool, brain voxels that are mostly grey or white matter."""
        return self.brain & (self.shares["csf"] < 0.5)


@dataclass(frozen=True, kw_only=True)
class _Template:
    """Maps of (X, Y, Z) float32 in [0, 1] on one 1 mm grid, RAS; `origin_mm` is voxel (0, 0, 0)."""

    grey: np.ndarray
    white: np.ndarray
    depth: np.ndarray
    ventricle: np.ndarray
    origin_mm: np.ndarray


def draw_anatomy(generator: np.random.Generator, spacing_mm: float) -> Anatomy:
    """Draw one subject.

    Args:
        spacing_mm: Isotropic voxel size of the result.

    Returns:
        The subject on the smallest grid that holds the brain and a margin of two voxels.
    """
    template = _load_template(spacing_mm)
    axes_mm = _axes(spacing_mm)
    template_mm, choices = _draw_pose(generator, axes_mm)
    depth = _sample(template.depth, template, template_mm)
    grey = _sample(template.grey, template, template_mm)
    white = _sample(template.white, template, template_mm)

    # The template is an average, whose sulci are all but closed; subjects have open ones.
    atrophy = float(generator.normal(0.9, 0.45))
    shares = _individual_shares(generator, axes_mm, grey, white, atrophy)
    strip = float(generator.uniform(0.5, 0.7))
    ventricle = _sample(template.ventricle, template, template_mm)
    brain = _strip((shares["csf"] < strip) & (depth > 0.3), depth, ventricle, spacing_mm)
    box = _bounding_box(brain, margin=2)
    brain, template_mm = brain[box], template_mm[(slice(None), *box)]
    for tissue, outside in zip(TISSUES, (1, 0, 0), strict=True):
        shares[tissue] = np.where(brain, shares[tissue][box], np.float32(outside))
    choices |= {"strip_level": round(strip, 3), "atrophy": round(atrophy, 3)}
    return Anatomy(
        axes_mm=(axes_mm[0][box[0]], axes_mm[1][box[1]], axes_mm[2][box[2]]),
        spacing_mm=spacing_mm,
        brain=brain,
        shares=shares,
        ventricle=ventricle[box],
        template_mm=template_mm,
        choices=choices,
    )


@lru_cache(maxsize=1)
def _load_template(spacing_mm: float) -> _Template:
    """The template, smoothed as far as voxels of `spacing_mm` would average it."""
    # Every command would wait seconds for it, and few simulate.
    from nilearn import datasets  # noqa: PLC0415

    head = datasets.load_mni152_template(resolution=1)
    origin_mm = head.affine[:3, 3]
    inside = np.asarray(head.dataobj) > 0.2
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    depth = ndimage.gaussian_filter(inside.astype(np.float32), 4.0)
    fluid = np.where(depth > 0.97, np.clip(1 - grey - white, 0, 1), 0)
    central = np.zeros_like(inside)
    central[
        tuple(
            slice(int(low - start), int(high - start) + 1)
            for (low, high), start in zip(VENTRICLES_MM, origin_mm, strict=True)
        )
    ] = True
    ventricle = ndimage.gaussian_filter(np.where(central, fluid, 0), 4.0)
    sigma = spacing_mm / FWHM_PER_SIGMA if spacing_mm > 1 else 0
    return _Template(
        grey=ndimage.gaussian_filter(grey, sigma),
        white=ndimage.gaussian_filter(white, sigma),
        depth=depth,
        ventricle=ventricle / ventricle.max(),
        origin_mm=origin_mm,
    )


def _axes(spacing_mm: float) -> Axes:
    """Voxel centres of a grid that holds every pose of the brain, in the subject frame."""
    counts = (int(np.ceil(extent / spacing_mm)) for extent in HALF_EXTENT_MM)
    x, y, z = (np.arange(-count, count + 1) * spacing_mm for count in counts)
    return x, y, z


def _draw_pose(
    generator: np.random.Generator, axes_mm: Axes
) -> tuple[np.ndarray, dict[str, object]]:
    """Each voxel's place in the template frame, (3, X, Y, Z) float32 in mm, and what was drawn."""
    size = float(generator.uniform(0.84, 0.9))
    scale = size * generator.normal(1, (0.02, 0.02, 0.01))
    angles_deg = generator.normal(0, (3.0, 2.0, 3.0))
    warps = ((38.0, float(generator.uniform(2.0, 3.2))), (16.0, float(generator.uniform(0.8, 1.3))))

    inverse = _rotation(np.deg2rad(angles_deg)) / scale
    grid = np.meshgrid(*axes_mm, indexing="ij", sparse=True)
    places = np.empty((3, *(len(axis) for axis in axes_mm)), dtype=np.float32)
    for row in range(3):
        steps = inverse[row] * LPS_TO_RAS
        places[row] = TEMPLATE_CENTRE_MM[row] + sum(
            step * part for step, part in zip(steps, grid, strict=True)
        )
        for scale_mm, deviation_mm in warps:
            places[row] += np.float32(deviation_mm) * smooth_field(generator, axes_mm, scale_mm)
    return places, {
        "scale": [round(float(value), 4) for value in scale],
        "rotation_deg": [round(float(value), 2) for value in angles_deg],
        "warp": [
            {"scale_mm": scale_mm, "deviation_mm": round(deviation_mm, 3)}
            for scale_mm, deviation_mm in warps
        ],
    }


def _rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3) rotation about X, then Y, then Z by `angles` in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _sample(values: np.ndarray, template: _Template, template_mm: np.ndarray) -> np.ndarray:
    """A template map at places in the template frame, linearly interpolated, 0 beyond it."""
    voxels = template_mm - template.origin_mm.astype(np.float32)[:, None, None, None]
    return np.asarray(ndimage.map_coordinates(values, voxels, order=1, prefilter=False))


def _individual_shares(
    generator: np.random.Generator,
    axes_mm: Axes,
    grey: np.ndarray,
    white: np.ndarray,
    atrophy: float,
) -> dict[str, np.ndarray]:
    """Tissue shares with folds of the subject's own, crisper than the average of 152 brains."""
    widening = atrophy + 0.6 * smooth_field(generator, axes_mm, 8.0)
    folding = 0.5 * smooth_field(generator, axes_mm, 7.0)
    weights = {
        "csf": np.clip(1 - grey - white, 0, 1) ** 2 * np.exp(widening),
        "grey": grey**2 * np.exp(folding),
        "white": white**2,
    }
    total = sum(weights.values()) + np.float32(1e-6)
    return {tissue: (weight / total).astype(np.float32) for tissue, weight in weights.items()}


def _strip(
    solid: np.ndarray, depth: np.ndarray, ventricle: np.ndarray, spacing_mm: float
) -> np.ndarray:
    """What skull stripping keeps: solid tissue but for thin spikes, and the fluid it encloses."""
    around = ndimage.gaussian_filter(solid.astype(np.float32), 3 / spacing_mm, truncate=2)
    enclosed = (depth > 0.93) & ((around > 0.4) | (ventricle > 0.15))
    return _largest_component((solid & (around > 0.22)) | enclosed)


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 6-connected component of a bool mask."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """The smallest box around a bool mask, widened by `margin` voxels within the grid."""
    x, y, z = (
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, length in zip(
            ndimage.find_objects(mask.astype(np.uint8))[0], mask.shape, strict=True
        )
    )
    return x, y, z
