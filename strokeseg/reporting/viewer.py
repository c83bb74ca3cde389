"""A viewer of a sight's slices that works inside the page.

It is brainsprite, as nilearn ships it. nilearn's own way to it, `view_img`, asks for matplotlib
and brings jQuery along, so the *sprites* are made here: all sagittal slices of a volume side by
side in one picture. Voxels are made cubes, and fewer, so that a page stays small. The overlay
tells by its colours what truth and prediction have in common and what only one of them has.
"""

from __future__ import annotations

import io
import json
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from strokeseg.errors import UserError
from strokeseg.imaging.panels import PREDICTION_COLOUR, TRUTH_COLOUR, grey
from strokeseg.reporting.markup import Markup, join, png_uri, tag
from strokeseg.reporting.sights import Sight

# Okabe and Ito's bluish green.
BOTH_COLOUR = (0, 158, 115)

_LONGEST = 96
_GREY_STEP = 8
_NOTHING, _MISSED, _FALSE, _BOTH = range(4)
_OVERLAY_PALETTE = [0, 0, 0, *TRUTH_COLOUR, *PREDICTION_COLOUR, *BOTH_COLOUR]
_SCRIPT_PLACES = ("_assets/js", "plotting/data/js")
_SCRIPT_NAME = "brainsprite.min.js"
_PLANES = (("X", "sagittal"), ("Y", "coronal"), ("Z", "axial"))

_START = """
window.addEventListener("load", function () {
  document.querySelectorAll(".viewer").forEach(function (box) {
    var canvas = box.querySelector("canvas"), asked = JSON.parse(box.dataset.settings);
    var brain = brainsprite({
      canvas: canvas.id, sprite: asked.name + "-image", nbSlice: asked.sides,
      overlay: {sprite: asked.name + "-overlay", nbSlice: asked.sides, opacity: 0.6},
      numSlice: asked.start, radiological: true, crosshair: true, colorCrosshair: "#999999",
      sizeFont: 0.07, smooth: false, onclick: function () { show(); }
    });
    var sliders = box.querySelectorAll("input[data-plane]");
    function show() {
      sliders.forEach(function (one) { one.value = brain.numSlice[one.dataset.plane]; });
    }
    sliders.forEach(function (one) {
      one.addEventListener("input", function () {
        brain.numSlice[one.dataset.plane] = Number(one.value);
        brain.drawAll();
      });
    });
    box.querySelector("input[data-opacity]").addEventListener("input", function (event) {
      brain.overlay.opacity = event.target.value / 100;
      brain.init();
      brain.drawAll();
    });
    show();
  });
});
"""


def viewer_script() -> Markup:
    """Return the scripts that all viewers of a page share.

    Raises:
        UserError: When nilearn is not installed, or ships no brainsprite.
    """
    return tag("script", Markup(_brainsprite()), Markup(_START))


def viewer(sight: Sight, name: str) -> Markup:
    """Return the viewer of a sight's first sequence.

    Args:
        sight: What is seen.
        name: Of the viewer, one on its page: letters, digits and dashes.
    """
    image, overlay = cubes(sight)
    sides = dict(zip("XYZ", image.shape, strict=True))
    start = {key: int(place) for key, place in zip("XYZ", _start(overlay), strict=True)}
    settings = {"name": name, "sides": sides, "start": start}
    sources = {"image": _png(sprite(image)), "overlay": _overlay_png(sprite(overlay))}
    pictures = [
        tag("img", id=f"{name}-{part}", src=png_uri(png), alt=part) for part, png in sources.items()
    ]
    label = f"Slices of case {sight.case}, {sight.sequences[0]}, with truth and prediction"
    canvas = tag("canvas", *pictures, id=f"{name}-canvas", role="img", aria_label=label)
    sliders = [_slider(plane, sides[key] - 1, start[key], data_plane=key) for key, plane in _PLANES]
    return tag(
        "div",
        tag("div", canvas),
        tag("div", *sliders, _slider("overlay", 100, 60, data_opacity="yes"), class_="sliders"),
        class_="viewer",
        data_settings=json.dumps(settings),
    )


def cubes(sight: Sight) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a sight on cubes of one size, the patient's right first as radiologists look.

    Returns:
        The image in levels of grey and the overlay (0 nothing, 1 truth only, 2 prediction only,
        3 both), both (X, Y, Z) uint8 with at most 96 voxels a side.
    """
    sides_mm = [n * step for n, step in zip(sight.truth.shape, sight.spacing_mm, strict=True)]
    side_mm = max(min(sight.spacing_mm), max(sides_mm) / _LONGEST)
    places = [
        np.minimum((np.arange(max(1, round(length / side_mm))) + 0.5) * side_mm // step, n - 1)
        for length, step, n in zip(sides_mm, sight.spacing_mm, sight.truth.shape, strict=True)
    ]
    places[0] = places[0][::-1]
    grid = np.ix_(*(place.astype(int) for place in places))
    overlay = sight.truth.astype(np.uint8) * _MISSED + sight.prediction.astype(np.uint8) * _FALSE
    image = sight.images[0][grid]
    levels = grey(image.reshape(len(image), -1)).reshape(image.shape)
    return levels // _GREY_STEP * _GREY_STEP, overlay[grid]


def sprite(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put all sagittal slices of a volume side by side, row by row, superior up.

    Args:
        volume: (X, Y, Z) uint8.

    Returns:
        (rows, columns) uint8; what is left of the last row is 0.
    """
    x, y, z = volume.shape
    down = int(np.ceil(np.sqrt(x)))
    across = -(-x // down)
    tiles = np.zeros((down * across, z, y), dtype=np.uint8)
    tiles[:x] = np.flip(np.swapaxes(volume, 1, 2), axis=1)
    return tiles.reshape(down, across, z, y).swapaxes(1, 2).reshape(down * z, across * y)


def _start(overlay: NDArray[np.uint8]) -> list[int]:
    """The middle of what is marked, or of the volume."""
    marked = np.argwhere(overlay > 0)
    if not len(marked):
        return [side // 2 for side in overlay.shape]
    centre = marked.mean(axis=0)
    # The marked voxel that is nearest: the centre of a bent lesion may lie beside it.
    return [int(at) for at in marked[np.linalg.norm(marked - centre, axis=1).argmin()]]


def _slider(name: str, most: int, value: int, **data: str) -> Markup:
    control = tag("input", type="range", min="0", max=str(most), value=str(value), **data)
    return tag("label", tag("span", name), control)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", optimize=True)
    return content.getvalue()


def _overlay_png(pixels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    picture.putpalette(_OVERLAY_PALETTE)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True, transparency=_NOTHING)
    return content.getvalue()


def _brainsprite() -> str:
    try:
        package = resources.files("nilearn")
    except ModuleNotFoundError:
        raise UserError("the report's viewer needs nilearn: pip install nilearn") from None
    for place in _SCRIPT_PLACES:
        script = package / place / _SCRIPT_NAME
        if script.is_file():
            return join(Markup(script.read_text(encoding="utf-8")))
    raise UserError(
        f"nilearn ships no {_SCRIPT_NAME}, which the report's viewer needs: pip install -U nilearn"
    )
