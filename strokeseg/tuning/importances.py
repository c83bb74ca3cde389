"""Which parameters decided how good a trial was.

A parameter's *importance* is its share, among all parameters that were searched, of what sets
the best quarter of the trials apart from all of them (PED-ANOVA). That depends only on which
trials are among the best, not by how much, so trials that were stopped early count for what they
are: not among the best. It takes parameters that exist under a condition, and it needs no more
libraries. fANOVA would model the scores themselves, of which those of stopped trials are too
low, and leaves parameters out that some trials do not have.

Source: Watanabe et al., PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces, IJCAI 2023, and its extension to conditional spaces (arXiv 2601.20800).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial

from strokeseg.records.leaderboard import LeaderboardRow
from strokeseg.storage.files import write_csv
from strokeseg.tuning.journal import read_study

# Fewer than five best trials are too few for the method (Optuna's manual). On a simulated study
# of eight parameters, one of them decisive, it came first for 50 % of the seeds with 10 trials,
# 88 % with 20 and 100 % with 40.
_BEST_SHARE, _LEAST_BEST = 0.25, 5
LEAST_TRIALS = int(_LEAST_BEST / _BEST_SHARE)
_SHOWN = 5


def write_importances(journal: Path, axis: str, rows: Sequence[LeaderboardRow], path: Path) -> str:
    """Write the importances of an axis's parameters, if there are trials enough to tell.

    Args:
        rows: The leaderboard's, which say what each trial scored.
        path: A CSV file: parameter, importance; the most important first.

    Returns:
        What to tell the user: the first of them, or why there are none.
    """
    study = read_study(journal, axis)
    trials = [] if study is None else scored_trials(study.trials, rows)
    if len(trials) < LEAST_TRIALS:
        return (
            f"{axis}: no parameter importances, since {len(trials)} trials have a score and "
            f"fewer than {LEAST_TRIALS} tell nothing"
        )
    importances = importances_of(trials)
    if not importances:
        return f"{axis}: no parameter importances, since no parameter sets the best trials apart"
    write_csv(
        path,
        ("parameter", "importance"),
        [
            {"parameter": name, "importance": f"{importance:.4f}"}
            for name, importance in importances.items()
        ],
    )
    first = ", ".join(
        f"{name} {importance:.2f}" for name, importance in list(importances.items())[:_SHOWN]
    )
    return f"{axis}: parameter importances over {len(trials)} trials: {first}; all in {path}"


def scored_trials(
    trials: Sequence[FrozenTrial], rows: Sequence[LeaderboardRow]
) -> list[FrozenTrial]:
    """Return trials that ran to their end or were stopped early, complete with their best score.

    Failed ones are left out, since what failed them need not be their parameters, and so are
    further runs of the best, which would count these twice.
    """
    return [
        optuna.create_trial(
            params=trials[row.trial].params,
            distributions=trials[row.trial].distributions,
            value=row.dice,
        )
        for row in rows
        if row.state in ("COMPLETE", "PRUNED") and row.confirms is None and row.dice is not None
    ]


def importances_of(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return each parameter's importance, from 0 to 1 and 1 together, the largest first.

    Args:
        trials: Complete ones. A larger value is better.

    Returns:
        By parameter; those that took one value only are left out. Empty when the best
        trials do not differ from the others.
    """
    values = {trial.value for trial in trials}
    if len(values) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    found = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE).evaluate(study)
    varied = {name: importance for name, importance in found.items() if _is_varied(name, trials)}
    total = sum(varied.values())
    if total <= 0:
        return {}
    ordered = sorted(varied.items(), key=lambda item: (-item[1], item[0]))
    return {name: importance / total for name, importance in ordered}


def _is_varied(name: str, trials: Sequence[FrozenTrial]) -> bool:
    return len({trial.params[name] for trial in trials if name in trial.params}) > 1
