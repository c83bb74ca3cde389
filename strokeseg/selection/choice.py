"""The choice of an experiment's ensemble, from its candidates to what is promoted."""

from __future__ import annotations

import torch

from strokeseg.process.progress import Show
from strokeseg.records.ensemble import Rule
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import Preparation
from strokeseg.selection.candidates import Candidates, unseen_cases
from strokeseg.selection.options import best_of_each_axis
from strokeseg.selection.out_of_fold import collect_evidence
from strokeseg.selection.record import Outcome
from strokeseg.selection.scores import LOWEST_THRESHOLD, Choice, PatientScores
from strokeseg.selection.steps import leave_each_out, take_steps


def choose_ensemble(
    experiment: Experiment,
    preparation: Preparation,
    candidates: Candidates,
    *,
    device: torch.device,
    show: Show,
) -> Outcome:
    """Choose as `ensemble.choose` says, in the Ray that this process is connected to.

    Args:
        candidates: The trials to choose from.
        device: Where to compute the predictions.
        show: Called after every predicted case.

    Raises:
        UserError: When a prediction cannot be computed; `vote` needs none.
    """
    settings = experiment.config.ensemble
    start = Choice(
        members=best_of_each_axis(candidates.names, settings.members_per_axis),
        rule=Rule(threshold=settings.threshold),
    )
    if settings.choose == "vote":
        return Outcome(method="vote", start=start, chosen=start)
    compared = list(candidates.by_name.values())
    cases = unseen_cases(preparation, compared)
    evidence = collect_evidence(
        experiment,
        preparation,
        compared,
        cases,
        lowest_threshold=min(LOWEST_THRESHOLD, settings.threshold),
        device=device,
        show=show,
    )
    scores = PatientScores(evidence)
    chosen, steps = take_steps(scores, start, candidates.names, settings.choose)
    return Outcome(
        method=settings.choose,
        start=start,
        chosen=chosen,
        steps=steps,
        patients=len(scores.patients),
        cases=len(cases),
        dice_start=float(scores.of(start).mean()),
        dice_chosen=float(scores.of(chosen).mean()),
        left_out=leave_each_out(scores, start, candidates.names, settings.choose),
        k_fold=any(len(one.files) > 1 for one in compared),
    )
