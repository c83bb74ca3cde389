"""What must be shown beside scores that flatter."""

from __future__ import annotations

from strokeseg.evaluation.methods import all_members
from strokeseg.records.ensemble import MEMBERS_FOLDER, EnsembleRecord
from strokeseg.records.experiment import Experiment
from strokeseg.records.member_header import read_member_record


def caution_of(experiment: Experiment, record: EnsembleRecord, on: str) -> str | None:
    """Return what to bear in mind of scores on a subset; None for the test patients.

    Args:
        on: `test` or `validation`.
    """
    if on == "test":
        return None
    fold = experiment.config.splits.validation_fold
    files = [name for names in all_members(record).values() for name in names]
    folder = experiment.ensemble_folder / MEMBERS_FOLDER
    trained = sum(read_member_record(folder / name).fold != fold for name in files)
    if trained:
        return (
            f"{trained} of the {len(files)} members were trained on these very patients; the "
            "scores say nothing of patients that no member has seen"
        )
    return "these patients chose the trials and the ensemble; the scores flatter it"
