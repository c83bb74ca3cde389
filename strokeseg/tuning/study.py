"""One axis's study: built or gone on with, run under Tune, left tidy.

The study's *settings* are all that its scores depend on: the space, the budget of a trial,
the data. They are kept in the journal, and a study goes on only with the settings that it
began with; only the number of trials may grow. With other settings a new study begins, which
inherits what still fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from strokeseg.errors import UserError, listed, shown
from strokeseg.records.config import SearchConfig
from strokeseg.records.experiment import Experiment
from strokeseg.storage.files import write_json
from strokeseg.storage.lease import leased
from strokeseg.training.encoders import FoundWeights
from strokeseg.tuning.entries import check_study
from strokeseg.tuning.inheritance import inherit
from strokeseg.tuning.journal import converts_journal_errors, mend_journal, open_journal, read_study
from strokeseg.tuning.ledger import INHERITED, Ledger
from strokeseg.tuning.scoring import FoldScoring, KFoldScoring, Scoring
from strokeseg.tuning.space import Space, enqueue_first

_SETTINGS, _WEIGHTS, _EXTENDED = "settings", "weights", "extended_to"
# Those that `study.json` tells; the journal has all.
_RECORDED_SETTINGS = ("sampler", "scoring", "epochs", "slices_per_epoch", "grace_epochs", "seed")


@dataclass(frozen=True, kw_only=True)
class PreparedSlices:
    """What a study needs to know of the prepared data.

    Attributes:
        folder: The Parquet files.
        folds: The cases of each fold.
        validation_fold: The fold that scores the trials, unless scoring is k-fold.
        spacing_mm: Voxel size (x, y, z) of the prepared cases.
        fingerprint: Hash of the preparation and its input.
    """

    folder: Path
    folds: tuple[tuple[str, ...], ...]
    validation_fold: int
    spacing_mm: tuple[float, float, float]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study opened: its ledger, and what it was opened with."""

    ledger: Ledger
    space: Space
    weights: Mapping[str, FoundWeights]
    optuna: optuna.Study


# Checks the space's encoders and finds their pretrained weights, by encoder.
FindEncoders = Callable[[], Mapping[str, FoundWeights]]


@contextmanager
def open_study(
    experiment: Experiment,
    axis: str,
    data: PreparedSlices,
    *,
    budget: SearchConfig,
    space: Space,
    find_encoders: FindEncoders,
    extend: int = 0,
    new_study: bool = False,
) -> Iterator[Study]:
    """Build an axis's study or open the one that is there, and hold it against other drivers.

    Everything that can be wrong with the encoders or the weights is found here, before the
    first trial.

    Args:
        budget: How it is searched, and how much that may spend.
        space: What is searched.
        find_encoders: Called for a study that has trials to run.
        extend: Trials to add to a study that is done; one that is not goes on first.
        new_study: Put a study that began with other settings aside and begin a new one,
            which inherits from it.

    Raises:
        UserError: When an encoder is wrong, pretrained weights cannot be had, the study
            began with other settings, or another process runs it.
    """
    settings = _settings(space, budget, data)
    journal = experiment.journal(axis)
    with converts_journal_errors(journal):
        before = _begun(journal, axis)
    differing = [] if before is None else _changes(before.user_attrs[_SETTINGS], settings)
    if differing and not new_study:
        raise UserError(
            f"{experiment.search_folder(axis)}: this study began with other settings "
            f"({listed(differing)}); restore them, or begin a new study that inherits the "
            "trials of this one with --new-study"
        )
    # A study that is new must fail before it leaves a file, one that is done needs no weights.
    begins = before is None or bool(differing)
    weights = find_encoders() if begins else {}
    with _held(experiment, axis):
        # Finding weights takes its time: another driver may have come and gone.
        if begins and before is None and _begun(journal, axis) is not None:
            raise UserError(
                f"{experiment.search_folder(axis)}: another search began this study just now; "
                "run the command again to go on with it"
            )
        mend_journal(journal)
        if begins:
            if differing:
                _put_aside(experiment, axis)
            journal.unlink(missing_ok=True)
            study = _begin(experiment, axis, space, settings, weights)
        else:
            with converts_journal_errors(journal):
                study = _load(journal, axis)
                check_study(study)
        scoring = _scoring(budget, data)
        ledger = Ledger(study, space, scoring, budget, trials=_total(study, budget))
        # Only then, since the same command after an interruption must not add them twice.
        if extend and not ledger.remaining() and not ledger.to_confirm():
            study.set_user_attr(_EXTENDED, ledger.trials + extend)
            ledger = Ledger(study, space, scoring, budget, trials=_total(study, budget))
        if not begins and not ledger.is_done():
            weights = find_encoders()
        if weights:
            _keep_weights(study, weights, experiment.search_folder(axis))
        recorded = {name: settings[name] for name in _RECORDED_SETTINGS}
        write_json(experiment.study_json(axis), {**recorded, "trials": ledger.trials})
        yield Study(ledger=ledger, space=space, weights=weights, optuna=study)


@contextmanager
def _held(experiment: Experiment, axis: str) -> Iterator[None]:
    experiment.driver_lock(axis).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(experiment.driver_lock(axis), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{experiment.search_folder(axis)}: another search is running on this study; wait "
            "for it or end it"
        ) from None
    try:
        with ExitStack() as leases:
            if experiment.remote_copy is not None:
                lease = experiment.driver_lock(axis).with_suffix(".lease")
                leases.enter_context(leased(experiment.remote_copy, lease))
                # What another machine has done since this command began.
                experiment.remote_copy.fetch()
            yield
    finally:
        lock.release()


def _begun(journal: Path, axis: str) -> optuna.Study | None:
    """Return the study that is there, or None: one without a trial of its own is none."""
    if not journal.exists():
        return None
    study = read_study(journal, axis)
    if study is None or _SETTINGS not in study.user_attrs:
        return None
    own = (
        trial.state is not TrialState.WAITING and INHERITED not in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )
    return study if any(own) else None


def _load(journal: Path, axis: str) -> optuna.Study:
    return optuna.load_study(storage=open_journal(journal), study_name=axis)


def _put_aside(experiment: Experiment, axis: str) -> None:
    folder = experiment.next_earlier_search_folder(axis)
    folder.parent.mkdir(parents=True, exist_ok=True)
    experiment.search_folder(axis).rename(folder)


def _begin(
    experiment: Experiment,
    axis: str,
    space: Space,
    settings: Mapping[str, Any],
    weights: Mapping[str, FoundWeights],
) -> optuna.Study:
    """Create a study, queue what it tries first, and let it inherit from earlier ones."""
    experiment.search_folder(axis).mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=open_journal(experiment.journal(axis)), study_name=axis, direction="maximize"
    )
    study.set_user_attr(_SETTINGS, settings)
    enqueue_first(study, space)
    if earlier := experiment.earlier_search_folders(axis):
        inherit(
            *(study, axis, space, earlier[-1], experiment.trials_folder(axis), settings),
            weights=_hashes(weights),
        )
    return study


def _total(study: optuna.Study, budget: SearchConfig) -> int:
    """Return how many trials a study shall have: as configured, or as it was extended to."""
    return max(budget.trials, int(study.user_attrs.get(_EXTENDED, 0)))


def _scoring(budget: SearchConfig, data: PreparedSlices) -> Scoring:
    if budget.scoring == "k-fold":
        return KFoldScoring(epochs_per_fold=budget.epochs, folds=data.folds)
    return FoldScoring(
        epochs=budget.epochs,
        grace_epochs=budget.grace,
        reduction_factor=budget.reduction_factor,
    )


def _settings(space: Space, budget: SearchConfig, data: PreparedSlices) -> dict[str, Any]:
    scored_on = {} if budget.scoring == "k-fold" else {"validation_fold": data.validation_fold}
    return {
        "space": space.model_dump(mode="json"),
        "sampler": budget.sampler,
        "scoring": budget.scoring,
        "epochs": budget.epochs,
        "slices_per_epoch": budget.slices_per_epoch,
        "grace_epochs": budget.grace,
        "reduction_factor": budget.reduction_factor,
        "seed": budget.seed,
        "data": data.fingerprint,
        "folds": [list(fold) for fold in data.folds],
        **scored_on,
    }


def _hashes(weights: Mapping[str, FoundWeights]) -> dict[str, str]:
    return {encoder: found.sha256 for encoder, found in weights.items()}


def _keep_weights(study: optuna.Study, weights: Mapping[str, FoundWeights], folder: Path) -> None:
    hashes = _hashes(weights)
    before = study.user_attrs.get(_WEIGHTS)
    if before is None:
        study.set_user_attr(_WEIGHTS, hashes)
    elif changes := _changes(before, hashes):
        raise UserError(
            f"{folder}: this study began with other pretrained weights ({listed(changes)}); "
            "restore them, or move the folder away to begin from scratch"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{shown(key)} was {shown(repr(old))}, now {new!r}"
        for key, old, new in _differences(before, now, "")
    ]


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            path = f"{key}.{name}" if key else name
            yield from _differences(old.get(name), new.get(name), path)
    elif old != new:
        yield key, old, new
