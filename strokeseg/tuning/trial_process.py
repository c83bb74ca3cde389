"""A trial's process, as the driver sees it.

Only the process itself imports `tuning.trial` and with it PyTorch: the driver needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from strokeseg.tuning.feed import Feed
from strokeseg.tuning.trial_settings import TrialSettings


def run_trial(
    proposal: Mapping[str, Any],
    *,
    feeds: Mapping[str, Feed],
    weights: Mapping[str, ray.ObjectRef],
    settings: Mapping[str, TrialSettings],
) -> None:
    """Run one trial inside Tune; see `tuning.trial.run_trial`.

    Args:
        proposal: What the searcher suggested: `axis`, and what the trial wants.
        feeds: By axis.
        weights: By encoder.
        settings: By axis.
    """
    from strokeseg.tuning import trial  # noqa: PLC0415

    axis = proposal["axis"]
    trial.run_trial(proposal, feed=feeds[axis], weights=weights, settings=settings[axis])
