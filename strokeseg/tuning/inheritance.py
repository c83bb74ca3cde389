"""What a new study knows before its first trial.

A study *inherits* from an earlier one of its axis whose space was changed: the trials that
still are points of the new space, with their scores where these were measured alike, else
the best of their configurations to be tried first.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from strokeseg.records.config import TrialConfig
from strokeseg.records.experiment import journal_in, trial_weights, trials_in, weights_files
from strokeseg.storage.files import replacing_file
from strokeseg.tuning.entries import CONFIG, INHERITED, check_study, may_be_inherited
from strokeseg.tuning.journal import converts_journal_errors, read_study
from strokeseg.tuning.space import ORIGIN, Space

# Settings that may change without making scores incomparable.
_MAY_DIFFER = {"space", "sampler", "seed", "grace_epochs", "reduction_factor"}
_TRIED_FIRST = 3


def inherit(
    study: optuna.Study,
    axis: str,
    space: Space,
    earlier: Path,
    trials_folder: Path,
    settings: Mapping[str, Any],
    weights: Mapping[str, str],
) -> None:
    """Take over the trials of an earlier study that are points of a new one's space.

    Args:
        axis: Its axis, and the name of both studies.
        space: The new study's space.
        earlier: The earlier study's folder.
        trials_folder: Of the new study; weights that the earlier one kept are copied there.
        settings: Of the new study.
        weights: Hashes of its pretrained weights by encoder.
    """
    with converts_journal_errors(journal_in(earlier)):
        old = read_study(journal_in(earlier), axis)
        if old is not None:
            check_study(old)
    if old is None:
        return
    before = old.user_attrs["settings"]
    differing = {
        key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key)
    }
    fitting = [
        (trial, parameters)
        for trial in old.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and may_be_inherited(trial)
        and (parameters := _parameters(space, trial)) is not None
    ]
    if differing <= _MAY_DIFFER and _agree(old.user_attrs.get("weights", {}), weights):
        for trial, parameters in fitting:
            _take_over(study, space, trial, parameters, earlier, trials_folder)
        return
    scored = [(trial, parameters) for trial, parameters in fitting if trial.value is not None]
    # What Optuna keeps as the value of a trial that was stopped is its last report alone, an epoch
    # or a patient: it comes after all that ran to their end.
    scored.sort(
        key=lambda pair: (
            pair[0].state is not TrialState.COMPLETE,
            -(pair[0].value or 0.0),
            pair[0].number,
        )
    )
    for trial, parameters in scored[:_TRIED_FIRST]:
        origin = f"{earlier.name} trial {trial.number}"
        study.enqueue_trial(dict(parameters), user_attrs={ORIGIN: origin})


def _agree(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether the encoders that two studies share started from the same weights."""
    return all(before[encoder] == now[encoder] for encoder in before.keys() & now.keys())


def _parameters(space: Space, trial: optuna.trial.FrozenTrial) -> dict[str, Any] | None:
    return space.parameters_of(TrialConfig.model_validate(trial.user_attrs[CONFIG]))


def _take_over(
    study: optuna.Study,
    space: Space,
    trial: optuna.trial.FrozenTrial,
    parameters: Mapping[str, Any],
    earlier: Path,
    trials_folder: Path,
) -> None:
    number = len(study.get_trials(deepcopy=False))
    files = weights_files(trials_in(earlier), trial.number)
    for path in files:
        with replacing_file(trial_weights(trials_folder, number).with_name(path.name)) as copy:
            shutil.copyfile(path, copy)
    kept = {key: value for key, value in trial.user_attrs.items() if key != ORIGIN}
    study.add_trial(
        optuna.trial.create_trial(
            state=trial.state,
            value=trial.value,
            params=dict(parameters),
            distributions=space.distributions_of(parameters),
            intermediate_values=trial.intermediate_values,
            user_attrs={
                **kept,
                INHERITED: bool(files),
                ORIGIN: f"{earlier.name} trial {trial.number}",
            },
        )
    )
