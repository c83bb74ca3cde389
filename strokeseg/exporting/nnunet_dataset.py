"""The experiment's cases and splits as a raw data set of nnU-Net, so that it trains on the same.

Volumes are as they came, neither cropped nor normalised; only what had a grid of its own is
brought onto that of the reference sequence, since nnU-Net wants one grid a case. Masks are 0 and
1. The locked test cases go without their masks: `strokeseg evaluate` keeps those.

`imaging.layouts.nnunet` describes the layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from strokeseg.compute.session import ray_session
from strokeseg.errors import CaseError, UserError
from strokeseg.imaging.cases import TEST, Case
from strokeseg.imaging.layouts.nnunet import DATASET_JSON, SPLITS_JSON
from strokeseg.imaging.prepared import prepare_case
from strokeseg.imaging.volume import read_volume, voxels_on, write_map, write_mask
from strokeseg.preparation.steps import Progress
from strokeseg.preparation.tasks import spread
from strokeseg.records.config import ExperimentConfig
from strokeseg.records.experiment import Experiment
from strokeseg.records.preparation import Preparation, changed_files, read_preparation
from strokeseg.storage.files import replacing_folder, write_json, write_text

NUMBERS = range(1, 1000)


class _WriteTask:
    """Writes the files of one case, for training or for testing by its subset."""

    def __init__(self, config: ExperimentConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    def __call__(self, case: Case) -> str:
        """Return why the case could not be written, or None when it was."""
        # What a task raises reaches the driver wrapped beyond recognition.
        try:
            self._write(case)
        except UserError as error:
            return f"{case.name}: {error}"
        return ""

    def _write(self, case: Case) -> None:
        tests = case.fold == TEST
        sequences = self._config.data.sequences
        grid = read_volume(case.images[self._config.preparation.reference or sequences[0]]).grid
        images = self._folder / ("imagesTs" if tests else "imagesTr")
        for channel, sequence in enumerate(sequences):
            voxels = voxels_on(read_volume(case.images[sequence]), grid, 1)
            write_map(images / f"{case.name}_{channel:04d}.nii.gz", voxels, grid)
        if tests:
            return
        prepared = prepare_case(
            case.images,
            sequences=sequences,
            mask=case.mask,
            lesion_labels=self._config.data.lesion_labels,
            reference=self._config.preparation.reference,
        )
        if prepared.native_mask is None:
            raise CaseError("lost its lesion mask since it was prepared; prepare it again")
        write_mask(self._folder / "labelsTr" / f"{case.name}.nii.gz", prepared.native_mask, grid)


def write_nnunet_dataset(experiment: Experiment, number: int, progress: Progress) -> Path:
    """Write the data set, whole or not at all; one that is there is replaced.

    Args:
        number: The data set's, 1 to 999.
        progress: Gives, for a title, a context manager of a function that shows progress.

    Returns:
        The data set's folder, in the experiment's `nnunet_raw`.

    Raises:
        UserError: When the number is out of range, the experiment is not prepared, a case has
            changed since, or the folder cannot be written.
    """
    if number not in NUMBERS:
        raise UserError(f"--number must be 1 to 999, as nnU-Net numbers data sets, got {number}")
    preparation = read_preparation(experiment)
    cases = list(preparation.cases.values())
    if changed := [file for case in cases for file in changed_files(experiment, case)]:
        raise UserError(
            f"{changed[0]}: has changed since it was prepared ({len(changed)} files have); prepare "
            "again"
        )
    name = re.sub("[^A-Za-z0-9]", "", experiment.name) or "Strokeseg"
    place = experiment.nnunet_raw / f"Dataset{number:03d}_{name}"
    with replacing_folder(place) as folder:
        with (
            ray_session(experiment.folder, experiment.data_path),
            progress("Writing cases") as show,
        ):
            faults = spread(_WriteTask(experiment.config, folder), cases, show)
        if failed := [fault for fault in faults if fault]:
            raise UserError("\n".join(failed))
        write_json(folder / DATASET_JSON, _description(experiment, preparation, name))
        write_json(folder / SPLITS_JSON, folds_of(cases))
        write_text(folder / "README.md", _manual(experiment, preparation, number, place.name))
    return place


def folds_of(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """Return the folds as nnU-Net's `splits_final.json` has them, without the test cases.

    Args:
        cases: Each with its subset as `fold`.
    """
    trained = [case for case in cases if case.fold != TEST]
    folds = sorted({int(case.fold or 0) for case in trained})
    return [
        {
            "train": sorted(case.name for case in trained if case.fold != str(number)),
            "val": sorted(case.name for case in trained if case.fold == str(number)),
        }
        for number in folds
    ]


def _description(experiment: Experiment, preparation: Preparation, name: str) -> dict[str, object]:
    sequences = experiment.config.data.sequences
    return {
        "name": name,
        "description": f"Experiment {experiment.name} of strokeseg; README.md says how to train",
        "channel_names": {str(number): sequence for number, sequence in enumerate(sequences)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": sum(case.fold != TEST for case in preparation.cases.values()),
        "file_ending": ".nii.gz",
        # Files of all orientations and oblique ones are read, and predictions written alike.
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        "splits_hash": preparation.splits_hash,
    }


def _manual(experiment: Experiment, preparation: Preparation, number: int, folder: str) -> str:
    fold = experiment.config.splits.validation_fold
    test = len(preparation.names(TEST))
    return f"""\
# {folder}

The cases of the experiment {experiment.name} as a raw data set of nnU-Net v2, with the same
splits (hash {preparation.splits_hash}). `imagesTs` holds the {test} locked test cases, without
their masks; {SPLITS_JSON} holds the folds. strokeseg trains its trials on all folds but
{fold}, which validates: nnU-Net's fold {fold} is the same division.

    export nnUNet_raw=<the folder of this folder> nnUNet_preprocessed=... nnUNet_results=...
    nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity
    cp "$nnUNet_raw/{folder}/{SPLITS_JSON}" "$nnUNet_preprocessed/{folder}/"
    nnUNetv2_train {number} 2d {fold}
    nnUNetv2_predict -d {number} -c 2d -f {fold} -i "$nnUNet_raw/{folder}/imagesTs" -o masks
    strokeseg evaluate --experiment {experiment.name} --storage <that of the experiment> \\
        --predictions masks --name nnU-Net

The splits must be copied before training: without them nnU-Net draws its own.
"""
