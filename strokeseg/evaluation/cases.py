"""The cases that an evaluation scores."""

from __future__ import annotations

from strokeseg.errors import UserError
from strokeseg.imaging.cases import TEST, Case
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import Preparation


def cases_to_score(experiment: Experiment, preparation: Preparation, on: str) -> list[Case]:
    """Return the cases of a subset, `test` or `validation`.

    Raises:
        UserError: When there are none.
    """
    subset = TEST if on == "test" else str(experiment.config.splits.validation_fold)
    cases = [preparation.cases[name] for name in preparation.names(subset)]
    if not cases:
        raise UserError(
            f"{experiment.splits_json}: there is no {on} patient; for a test set choose "
            "splits.test_share or splits.test_patients, or name it in the manifest's column fold "
            "where the data bring their own folds, under another experiment name, or score the "
            "patients that chose the trials with --on validation"
        )
    return cases
