"""What `evaluate` measured, as later commands read it.

A *side* is `test`, the locked patients, or `validation`, those that chose the trials. A
summary is *current* when it was made of the ensemble that is there now: the record of an
ensemble holds its weights' hashes, so the record's own hash tells.
"""

from __future__ import annotations

from typing import Any

from strokeseg.experiment import Experiment
from strokeseg.files import file_sha256, read_json
from strokeseg.learning.ensemble_record import RECORD_NAME

SIDES = ("test", "validation")


def ensemble_hash(experiment: Experiment) -> str:
    """Return the hash that tells one ensemble of an experiment from another."""
    return file_sha256(experiment.ensemble_folder / RECORD_NAME)


def current_summary(
    experiment: Experiment, sides: tuple[str, ...] = SIDES
) -> dict[str, Any] | None:
    """Return the first current summary among the sides, or nothing when there is none."""
    for side in sides:
        path = experiment.summary_json(side)
        if path.exists():
            summary: dict[str, Any] = read_json(path)
            if summary["ensemble_sha256"] == ensemble_hash(experiment):
                return summary
    return None
