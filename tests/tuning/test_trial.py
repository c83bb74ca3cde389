"""A trial that goes on from whatever its state and the study's journal know of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strokeseg.compute.allotment import Allotment
from strokeseg.records.experiment import trial_folder, trial_state, trial_weights
from strokeseg.training.slice_set import SliceSet, slices_in_memory
from strokeseg.tuning.trial import train_trial
from strokeseg.tuning.trial_settings import TrialSettings

EPOCHS = 3
CONFIG = {"encoder": "resnet18", "encoder_depth": 3, "batch_size": 4, "learning_rate": 3e-3}
# What takes its time, and is another one each time.
TIMES = {"seconds", "device_hours", "slices_per_second", "wait_share", "memory_gb"}


@pytest.fixture(scope="module")
def slices() -> SliceSet:
    """Four cases of noise in which half of the slices show a bright square."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(4, 8, 2, 32, 32)).astype(np.float16)
    masks = np.zeros((4, 8, 32, 32), dtype=np.uint8)
    masks[:, ::2, 8:18, 10:20] = 1
    images += 3 * masks[:, :, None]
    return slices_in_memory(images, masks, np.repeat(list("abcd"), 8))


def _train(slices: SliceSet, folder: Path, reported: int, **changes: Any) -> Any:
    settings = TrialSettings(
        **{
            "axis": "axial",
            "epochs": EPOCHS,
            "slices_per_epoch": 16,
            "seed": 0,
            "folds": (("a", "b"), ("c", "d")),
            "validation_fold": 0,
            "trials_folder": str(folder),
            "tensorboard_folder": str(folder / "tensorboard"),
            "allotment": Allotment(cpus=1, gpus=0, concurrent=1),
            "deterministic": False,
            "sequences": ("DWI", "FLAIR"),
            "spacing_mm": (1.0, 1.0, 1.0),
            "preparation_hash": "abc",
            "code_version": "1",
            **changes,
        }
    )
    torch.set_num_threads(1)
    return train_trial(
        {"number": 0, "config": CONFIG, "reported_epoch": reported}, slices, None, settings
    )


def _scores(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in TIMES}


@pytest.mark.parametrize("validation_fold", [0, None], ids=["one fold", "k-fold"])
def test_a_trial_goes_on_exactly_whatever_the_journal_knows_of_it(
    slices: SliceSet, tmp_path: Path, validation_fold: int | None
) -> None:
    whole = tmp_path / "whole"
    reports = []
    for metrics in _train(slices, whole, 0, validation_fold=validation_fold):
        reports.append(_scores(metrics))
        shutil.copytree(trial_folder(whole, 0), tmp_path / f"after {len(reports)}" / "0000")
    last = EPOCHS if validation_fold == 0 else 2 * EPOCHS
    assert [report["epoch"] for report in reports] == list(range(1, last + 1))
    (tmp_path / "after 0").mkdir()

    # From a storage comes a state that is older than the journal, or the other way round.
    for saved, reported in ((0, 2), (1, 2), (2, 1), (last - 1, last - 1)):
        folder = tmp_path / f"{saved} of {reported}"
        shutil.copytree(tmp_path / f"after {saved}", folder)
        again = [
            _scores(metrics)
            for metrics in _train(slices, folder, reported, validation_fold=validation_fold)
        ]
        assert again == reports[reported:]
        for fold in (None,) if validation_fold == 0 else (0, 1):
            weights = trial_weights(folder, 0, fold).read_bytes()
            assert weights == trial_weights(whole, 0, fold).read_bytes()
        assert trial_state(folder, 0).exists()
