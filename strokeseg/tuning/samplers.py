"""Who proposes the next trial: Optuna's samplers by name.

A sampler is made again for every trial, with a seed of that trial's own, so that a search
proposes the same after a restart as without one: what samplers learn they read from the
study. All of them take running trials into account: those side by side are not to repeat
each other.
"""

from __future__ import annotations

from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    RandomSampler,
    TPESampler,
)

from strokeseg.records.choices import SAMPLERS


def make_sampler(name: str, *, seed: int, trials: int) -> BaseSampler:
    """Return a sampler.

    Args:
        name: As `config.SearchConfig` names it. CMA-ES varies numbers only and the
            Gaussian process what all trials have in common; the rest is drawn at random.
        trials: Trials of the whole study; the first third of them, 3 to 10, are random.

    Raises:
        ValueError: When there is no sampler of that name.
    """
    random = min(10, max(3, trials // 3))
    match name:
        case "tpe":
            return TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=random,
            )
        case "random":
            return RandomSampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=random, warn_independent_sampling=False)
        case "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=random, warn_independent_sampling=False)
    raise ValueError(f"a sampler must be one of {SAMPLERS}, got {name!r}")
