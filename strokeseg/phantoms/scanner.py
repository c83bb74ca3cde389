"""A simulated scanner: from tissues and findings to the image of one sequence.

Each tissue has a *signal* per sequence, in units of white matter's. The scanner adds
texture, a *bias field* (slow shading), blur within the slice, *thick slices* (signal
averaged over their thickness, then interpolated back) and Rician noise, and gives the image
an arbitrary scale.

Source: Gudbjartsson and Patz, Magn Reson Med 34 (1995) 910, for noise of magnitude images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from strokeseg.phantoms.anatomy import FWHM_PER_SIGMA, TISSUES, Anatomy
from strokeseg.phantoms.fields import smooth_field
from strokeseg.phantoms.findings import Finding, Range


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a sequence is acquired: signals per tissue, and ranges that scanners vary in.

    Attributes:
        signals: Signal of CSF, grey and white matter, white matter's being 1.
        slice_mm: Slice thickness; the voxels' own where that is larger.
        blur_mm: Full width at half maximum of the blur within the slice.
        signal_to_noise: White matter's signal over the noise's standard deviation.
    """

    signals: tuple[float, float, float]
    slice_mm: Range
    blur_mm: Range
    signal_to_noise: Range


PROTOCOLS = {
    "T1": Protocol(
        signals=(0.3, 0.7, 1.0), slice_mm=(1.0, 1.2), blur_mm=(0.9, 1.4), signal_to_noise=(24, 40)
    ),
    "T2": Protocol(
        signals=(2.3, 1.3, 1.0), slice_mm=(4.0, 5.0), blur_mm=(0.9, 1.5), signal_to_noise=(24, 38)
    ),
    "DWI": Protocol(
        signals=(0.35, 1.1, 1.0), slice_mm=(4.0, 5.0), blur_mm=(2.0, 3.0), signal_to_noise=(13, 24)
    ),
    "FLAIR": Protocol(
        signals=(0.3, 1.15, 1.0), slice_mm=(4.0, 5.0), blur_mm=(1.0, 1.6), signal_to_noise=(18, 32)
    ),
}


def scan(
    generator: np.random.Generator, anatomy: Anatomy, findings: Sequence[Finding], sequence: str
) -> tuple[np.ndarray, dict[str, object]]:
    """Acquire one sequence.

    Args:
        findings: What changes the signal, in the order in which it does.
        sequence: A key of `PROTOCOLS`.

    Returns:
        The image, (X, Y, Z) int16 on the anatomy's grid in arbitrary units, 0 outside the
        brain and at least 1 inside, and what was drawn.
    """
    protocol = PROTOCOLS[sequence]
    signals = np.array(protocol.signals) * generator.normal(1, 0.04, 3)
    slice_mm = float(generator.uniform(*protocol.slice_mm))
    blur_mm = float(generator.uniform(*protocol.blur_mm))
    signal_to_noise = float(generator.uniform(*protocol.signal_to_noise))
    bias = float(generator.uniform(0.05, 0.12))
    scale = float(np.exp(generator.uniform(np.log(250), np.log(900))))

    signal = _signal(anatomy, findings, sequence, signals)
    signal *= 1 + 0.03 * smooth_field(generator, anatomy.axes_mm, 5.0)
    signal *= np.exp(np.float32(bias) * smooth_field(generator, anatomy.axes_mm, 65.0))
    sigma = blur_mm / FWHM_PER_SIGMA / anatomy.spacing_mm
    signal = ndimage.gaussian_filter(signal, (sigma, sigma, 0), truncate=3)
    slices, positions = _into_slices(signal, anatomy.spacing_mm, slice_mm)
    image = _interpolate(_add_noise(generator, slices, 1 / signal_to_noise), positions)
    voxels = np.clip(np.rint(image * np.float32(scale)), 1, np.iinfo(np.int16).max)
    return np.where(anatomy.brain, voxels, 0).astype(np.int16), {
        "signals": {
            tissue: round(float(value), 3) for tissue, value in zip(TISSUES, signals, strict=True)
        },
        "slice_mm": round(slice_mm, 3),
        "blur_mm": round(blur_mm, 3),
        "signal_to_noise": round(signal_to_noise, 2),
        "bias": round(bias, 3),
        "scale": round(scale, 2),
    }


def _signal(
    anatomy: Anatomy, findings: Sequence[Finding], sequence: str, signals: np.ndarray
) -> np.ndarray:
    """Undisturbed signal, (X, Y, Z) float32, in units of white matter's."""
    signal = np.zeros(anatomy.brain.shape, dtype=np.float32)
    for tissue, value in zip(TISSUES, signals, strict=True):
        signal += np.float32(value) * anatomy.shares[tissue]
    for finding in findings:
        if finding.replaces:
            signal += finding.presence * (np.float32(signals[0]) - signal)
        elif sequence in finding.gains:
            signal += np.float32(finding.gains[sequence]) * finding.presence
    return signal


def _into_slices(
    signal: np.ndarray, spacing_mm: float, slice_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average along Z over slices of `slice_mm`.

    Returns:
        The slices, (X, Y, S) float32, and for each of the Z voxels its place among them,
        (Z,) float64 in slices, from 0 to S - 1. Voxels no thinner than a slice stay as they are.
    """
    depth = signal.shape[2]
    if spacing_mm >= slice_mm:
        return signal, np.arange(depth, dtype=np.float64)
    thickness = slice_mm / spacing_mm
    edges = np.append(np.arange(0, depth, thickness), depth)
    whole = np.zeros((*signal.shape[:2], depth + 1))
    np.cumsum(signal, axis=2, dtype=np.float64, out=whole[..., 1:])
    slices = np.diff(_interpolate(whole, edges), axis=2) / np.diff(edges)
    centres = (edges[:-1] + edges[1:]) / 2
    places = np.interp(np.arange(depth) + 0.5, centres, np.arange(len(centres)))
    return slices.astype(np.float32), places


def _interpolate(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Values of (X, Y, S) at `positions` along the last axis, linearly interpolated."""
    low = np.minimum(np.floor(positions).astype(np.intp), values.shape[2] - 2)
    fraction = (positions - low).astype(values.dtype)
    return np.asarray(values[..., low] * (1 - fraction) + values[..., low + 1] * fraction)


def _add_noise(generator: np.random.Generator, signal: np.ndarray, deviation: float) -> np.ndarray:
    """Magnitude of the signal with complex Gaussian noise of `deviation` in each channel."""
    real, imaginary = (
        np.float32(deviation) * generator.standard_normal(signal.shape, dtype=np.float32)
        for _ in range(2)
    )
    return np.asarray(np.hypot(signal + real, imaginary))
