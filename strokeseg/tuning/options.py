"""What a search may spend, and with what: options of the command line, checked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strokeseg.compute.gpu_share import AUTO, Auto
from strokeseg.errors import UserError
from strokeseg.imaging.slices import AXES
from strokeseg.records.choices import SAMPLERS
from strokeseg.storage.remote_copy import fetched

if TYPE_CHECKING:
    from strokeseg.records.config import SearchConfig
    from strokeseg.records.experiment import Experiment
    from strokeseg.records.preparation import Preparation
    from strokeseg.tuning.search import SearchSettings
    from strokeseg.tuning.study import PreparedSlices


def add_axis_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names one axis or several."""
    parser.add_argument(
        "--axis",
        required=True,
        nargs="+",
        choices=AXES,
        help="axis along which slices are cut; one or several",
    )


def add_trial_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is trained, how long, and on what."""
    parser.add_argument("--space", metavar="FILE", help="search space, in place of the YAML's")
    parser.add_argument("--epochs", type=int, help="epochs a trial, in place of the YAML's")
    parser.add_argument(
        "--gpus-per-trial",
        type=gpus_or_auto,
        metavar="GPUS",
        help="GPUs of a trial: one, a fraction of one, or 0 for none; "
        f"{AUTO} to measure how many trials should share one (default: 1 if there are any)",
    )
    parser.add_argument(
        "--weights-dir",
        metavar="PLACE",
        help="folder or URI with pretrained encoders as <encoder>.safetensors or .pth, looked for "
        "there first",
    )


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much a search may spend, and with what."""
    add_trial_options(parser)
    parser.add_argument(
        "--trials",
        "--max-trials",
        dest="trials",
        type=int,
        help="number of trials, in place of the YAML's",
    )
    parser.add_argument(
        "--max-hours", type=float, metavar="H", help="stop after so many hours of searching"
    )
    parser.add_argument(
        "--target-dice", type=float, metavar="D", help="stop when a trial scores so much"
    )
    parser.add_argument("--sampler", choices=SAMPLERS, help="who proposes (default: tpe)")
    parser.add_argument(
        "--k-fold",
        dest="scoring",
        action="store_const",
        const="k-fold",
        help="score every trial on all folds, not on the validation fold alone",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="one trial at a time, in kernels that add in a fixed order: equal seeds then give "
        "equal trials, scores and ensembles on equal machines",
    )


def positive(text: str) -> int:
    """Read an option that is a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def gpus_or_auto(text: str) -> float | Auto:
    """Read an option that is a trial's GPUs, at most one, or the word for measuring them."""
    if text == AUTO:
        return AUTO
    gpus = float(text)
    # Written so that NaN is refused as well.
    if not 0 <= gpus <= 1:
        raise argparse.ArgumentTypeError(
            f"must be from 0 to 1, since a trial trains on one GPU at most, or {AUTO}; got {text}"
        )
    return gpus


def search_settings(
    experiment: Experiment, axes: Sequence[str], options: argparse.Namespace
) -> SearchSettings:
    """Return what a search is to do, by the experiment and the command line.

    Raises:
        UserError: When the budget is wrong, or options contradict each other.
    """
    from strokeseg.tuning.search import SearchSettings

    if options.deterministic and options.gpus_per_trial == AUTO:
        raise UserError(
            f"--deterministic runs one trial at a time: --gpus-per-trial {AUTO}, which measures "
            "how many should share a GPU, has nothing to decide; leave it out"
        )
    return SearchSettings(
        budget=budget_of(experiment.config.search, options),
        spaces={axis: space_path_of(experiment, axis, options) for axis in axes},
        weights_dir=weights_folder(options),
        gpus_per_trial=options.gpus_per_trial,
        deterministic=options.deterministic,
        extend=getattr(options, "extend", 0),
        new_study=getattr(options, "new_study", False),
    )


def weights_folder(options: argparse.Namespace) -> Path | None:
    """Return the folder of pretrained weights, fetched where it is a URI.

    Raises:
        UserError: When the URI holds none, or does not answer.
    """
    return fetched(options.weights_dir, "--weights-dir")


def budget_of(config: SearchConfig, options: argparse.Namespace) -> SearchConfig:
    """Return the configured budget with what the command line puts in its place."""
    from strokeseg.records.config import SearchConfig
    from strokeseg.records.record import parse_record

    names = ("trials", "epochs", "max_hours", "target_dice", "sampler", "scoring")
    given = {name: getattr(options, name, None) for name in names}
    changed = {name: value for name, value in given.items() if value is not None}
    return parse_record(SearchConfig, {**config.model_dump(), **changed}, "search")


def space_path_of(experiment: Experiment, axis: str, options: argparse.Namespace) -> Path:
    """Return the YAML file of an axis's search space."""
    return Path(options.space).absolute() if options.space else experiment.space_path(axis)


def prepared_slices(
    experiment: Experiment, preparation: Preparation, budget: SearchConfig
) -> PreparedSlices:
    """Return what a study needs to know of the prepared data.

    Raises:
        UserError: When a fold that scores leaves nothing to learn from, or shows nothing to score.
    """
    from strokeseg.tuning.study import PreparedSlices

    subsets = {case.fold for case in preparation.cases.values() if case.fold is not None}
    count = sum(subset.isdecimal() for subset in subsets)
    folds = tuple(preparation.names(str(fold)) for fold in range(count))
    k_fold = budget.scoring == "k-fold"
    scoring = range(count) if k_fold else (experiment.config.splits.validation_fold,)
    for fold in scoring:
        rest = [case for other, cases in enumerate(folds) if other != fold for case in cases]
        for role, cases in (("training", rest), ("validation", folds[fold])):
            if not any(preparation.lesion_ml[case] > 0 for case in cases):
                raise UserError(
                    f"{experiment.splits_json}: no {role} case shows a lesion when fold {fold} "
                    f"validates, so there is nothing to "
                    f"{'learn' if role == 'training' else 'score'}; choose another "
                    "splits.validation_fold, or other splits under another experiment name"
                )
    return PreparedSlices(
        folder=experiment.slices_folder,
        folds=folds,
        validation_fold=experiment.config.splits.validation_fold,
        spacing_mm=preparation.spacing_mm,
        fingerprint=preparation.fingerprint,
    )
