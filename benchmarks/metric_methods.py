"""Ways of scoring a pair of masks, one function each, and how they are timed.

Each is run in a process of its own, in our environment or in the peers', and tells its CPU seconds
(of all threads) for one pair as one line of JSON, after one that is not counted, with some of the
scores, to show that both measured the same:

    {"cpu_seconds": 0.03, "scores": {"dice": 0.91, "hd95_mm": 2.0, "assd_mm": 0.5}}

What a method needs is imported in its function, since no environment has everything.

python -m benchmarks.metric_methods MONAI PAIR.npz
"""

# ruff: noqa: PLC0415 - no environment has everything that the methods need

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

TIMES = 3

Scores = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("pair", type=Path, help="truth, prediction and spacing_mm, as .npz")
    given = parser.parse_args()
    with np.load(given.pair) as held:
        truth, prediction = held["truth"], held["prediction"]
        spacing_mm = tuple(held["spacing_mm"].tolist())
    method = METHODS[given.method]
    scores = method(truth, prediction, spacing_mm)
    seconds = []
    for _ in range(TIMES):
        start = time.process_time()
        method(truth, prediction, spacing_mm)
        seconds.append(time.process_time() - start)
    print(json.dumps({"cpu_seconds": median(seconds), "scores": scores}))


def strokeseg_scores(truth: Any, prediction: Any, spacing_mm: Any) -> Scores:
    """All of ours: overlap, distances, volumes, lesions, accuracy."""
    from strokeseg.imaging.metrics import score_masks

    scores = score_masks(truth, prediction, spacing_mm)
    return {name: getattr(scores, name) for name in ("dice", "hd95_mm", "assd_mm")}


def monai_scores(truth: Any, prediction: Any, spacing_mm: Any) -> Scores:
    """Dice, HD95 and ASSD."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
    )

    true, predicted = (torch.from_numpy(mask[None, None]) for mask in (truth, prediction))
    hd95 = compute_hausdorff_distance(predicted, true, percentile=95, spacing=spacing_mm)
    assd = compute_average_surface_distance(predicted, true, symmetric=True, spacing=spacing_mm)
    dice = compute_dice(predicted, true)
    return {"dice": dice.item(), "hd95_mm": hd95.item(), "assd_mm": assd.item()}


METHODS: dict[str, Callable[[Any, Any, Any], Scores]] = {
    "strokeseg": strokeseg_scores,
    "MONAI": monai_scores,
}


if __name__ == "__main__":
    main()
