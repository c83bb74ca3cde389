"""Two ways of dividing the same slices, and the gap where it must and must not show."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
import torch

from strokeseg.leakage.divisions import (
    BestWeightsScore,
    Division,
    divide_by_patient,
    divide_by_slice,
    measure,
    shuffle_within,
)
from strokeseg.records.config import NetworkConfig, TrialConfig
from strokeseg.training.epoch_result import EpochResult
from strokeseg.training.loop import Training
from strokeseg.training.network import build_network
from strokeseg.training.slice_set import SliceSet, slices_in_memory
from strokeseg.training.validation import dice_by_case, score_slices

CPU = torch.device("cpu")
MEMORISING = TrialConfig(
    encoder="resnet18", encoder_depth=3, batch_size=8, learning_rate=3e-3, augmentation=0
)
LESION = 100 / 1024


@pytest.fixture
def pool(toy_slices: Callable[..., SliceSet]) -> SliceSet:
    """Four cases of 12 slices, every other one with a lesion; the first two hold no brain."""
    slices = toy_slices(cases=4, slices=12)
    blocks = slices.store.images, slices.store.masks
    for images, masks in zip(*blocks, strict=True):
        images[:2], masks[:2] = 0, 0
    return slices_in_memory(*blocks, slices.cases)


def rows_of(slices: SliceSet) -> list[int]:
    assert slices.rows is not None
    return slices.rows.tolist()


def make_up(slices: SliceSet) -> tuple[int, int, int]:
    """Slices, those with brain, those with lesion."""
    return (len(slices), int(slices.holds_brain.sum()), int((slices.lesion_voxels > 0).sum()))


def test_the_patient_level_division_shares_no_case(pool: SliceSet) -> None:
    division = divide_by_patient(pool, ["case1"])
    assert set(division.validation.cases) == {"case1"}
    assert set(division.training.cases) == {"case0", "case2", "case3"}
    assert division.shared_cases == 0
    assert (division.validation_cases, division.lesion_free_cases) == (1, 0)
    assert sorted(rows_of(division.training) + rows_of(division.validation)) == list(range(48))


@pytest.mark.parametrize("seed", range(5))
def test_the_slice_level_division_is_disjoint_and_of_the_same_make_up(
    pool: SliceSet, seed: int
) -> None:
    division = divide_by_slice(pool, ["case1"], seed)
    # Every slice once, in either subset.
    assert sorted(rows_of(division.training) + rows_of(division.validation)) == list(range(48))
    # A case has 12 slices, 10 of them with brain, 5 of those with a lesion (2, 4, ... 10).
    assert make_up(division.training) == (36, 30, 15)
    assert make_up(division.validation) == (12, 10, 5)
    # 12 slices drawn from 4 cases: almost surely of several, who then also train.
    assert division.shared_cases == division.validation_cases >= 2


def test_the_slice_level_division_is_seeded(pool: SliceSet) -> None:
    first, again, other = (divide_by_slice(pool, ["case1"], seed) for seed in (3, 3, 4))
    assert rows_of(first.training) == rows_of(again.training)
    assert rows_of(first.training) != rows_of(other.training)


def test_shuffling_keeps_the_number_of_flags_of_every_kind() -> None:
    kinds = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    flags = np.array([True, True, True, False, False, False, False, False])
    shuffled = shuffle_within(flags, kinds, np.random.default_rng(0))
    assert np.bincount(kinds, weights=shuffled).tolist() == [2, 1, 0]
    assert flags.tolist() == [True, True, True, *[False] * 5]


def test_cases_whose_validation_slices_show_no_lesion_are_counted(pool: SliceSet) -> None:
    shows = pool.lesion_voxels > 0
    # Of case0 only slices without a lesion validate, of case1 one with a lesion as well.
    validates = (pool.cases == "case0") & ~shows
    validates[12 + 2] = True
    division = Division(training=pool.keep(~validates), validation=pool.keep(validates))
    assert (division.validation_cases, division.lesion_free_cases) == (2, 1)
    assert division.shared_cases == 2


def make_training(division: Division, epochs: int, seed: int = 0) -> Training:
    network = build_network(
        NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=seed
    )
    return Training(
        network=network,
        training=division.training,
        validation=division.validation,
        config=MEMORISING,
        epochs=epochs,
        slices_per_epoch=64,
        seed=seed,
    )


def measured(
    division: Division, unseen: SliceSet, epochs: int
) -> tuple[list[EpochResult], BestWeightsScore]:
    *results, score = measure(make_training(division, epochs), unseen, CPU)
    assert isinstance(score, BestWeightsScore)
    epochs_of = [result for result in results if isinstance(result, EpochResult)]
    assert len(epochs_of) == len(results) == epochs
    return epochs_of, score


def memorable(cases: int, seed: int) -> SliceSet:
    """Make cases whose lesion can be known only by having seen the case.

    A case is one texture of noise, all of its 8 slices the same but for a little more
    noise. Its lesion is a 10 x 10 square at one place of the 32 x 32, drawn again for every
    case (across the edges, so that all places are alike), and nothing of it is in the image.
    """
    generator = np.random.default_rng(seed)
    images, masks = [], []
    square = np.zeros((32, 32), dtype=np.uint8)
    square[:10, :10] = 1
    for _ in range(cases):
        texture = generator.normal(size=(2, 32, 32))
        noise = 0.1 * generator.normal(size=(8, 2, 32, 32))
        images.append((texture + noise).astype(np.float16))
        place = tuple(generator.integers(32, size=2))
        masks.append(np.repeat(np.roll(square, place, axis=(0, 1))[None], 8, axis=0))
    return slices_in_memory(
        images, masks, np.repeat([f"case{case:02}" for case in range(cases)], 8)
    )


def test_where_cases_can_only_be_memorised_the_slice_level_split_prints_what_is_not_there() -> None:
    slices = memorable(cases=16, seed=0)
    names = sorted(set(slices.cases))
    unseen, pool, inner = slices.select(names[:8]), slices.select(names[8:]), names[8:11]
    # A network that has not seen a case marks a share p of its voxels without knowing where
    # the lesion, a share q = 100 / 1024, lies. In the mean it meets p * q of them, a Dice of
    # 2 p q / (p + q), which is the larger the more is marked: at p = 1
    by_chance = 2 * LESION / (1 + LESION)
    assert by_chance == pytest.approx(0.178, abs=1e-3)
    # It deviates most where it marks squares too. Two squares overlap in 10 - k of 10 columns
    # for a shift of k out of 32, either way: in the mean 100 / 32, squared
    # (100 + 2 (1 + 4 + ... + 81)) / 32; rows and columns are independent.
    squared = (100 + 2 * sum(k * k for k in range(1, 10))) / 32
    deviation = (squared**2 / 100**2 - LESION**2) ** 0.5
    assert deviation == pytest.approx(0.185, abs=1e-3)
    # Three standard errors of a mean over 3 cases, the fewest below, stay below 0.5.
    low = by_chance + 3 * deviation / 3**0.5
    assert low == pytest.approx(0.498, abs=1e-3)

    _, by_slice = measured(divide_by_slice(pool, inner, seed=0), unseen, epochs=6)
    # What validates is a copy of what trained: the lesion is known to almost the voxel.
    assert by_slice.printed_dice > 0.9
    assert by_slice.unseen_dice < low
    assert by_slice.printed_dice - by_slice.unseen_dice > 0.9 - low

    _, by_patient = measured(divide_by_patient(pool, inner), unseen, epochs=6)
    assert by_patient.printed_dice < low
    assert by_patient.unseen_dice < low


def test_what_shows_in_every_case_scores_alike_on_both_sides_of_either_division(
    toy_slices: Callable[..., SliceSet],
) -> None:
    # A square three standard deviations brighter than the noise around it.
    slices = toy_slices(cases=6, slices=12)
    unseen, pool = (
        slices.select(["case0", "case1"]),
        slices.select([f"case{n}" for n in range(2, 6)]),
    )
    for division in (divide_by_slice(pool, ["case2"], seed=0), divide_by_patient(pool, ["case2"])):
        _, score = measured(division, unseen, epochs=5)
        assert score.unseen_dice > 0.7
        assert abs(score.printed_dice - score.unseen_dice) < 0.15


def test_the_score_is_that_of_the_best_epochs_weights(toy_slices: Callable[..., SliceSet]) -> None:
    slices = toy_slices(cases=4, slices=8)
    division = divide_by_patient(slices.select(["case1", "case2", "case3"]), ["case1"])
    # What has just been printed is unseen as well: both scores must be one.
    results, score = measured(division, division.validation, epochs=4)
    best = max(results, key=lambda result: result.dice)
    assert (score.printed_dice, score.best_epoch) == (best.dice, best.epoch)
    assert score.unseen_dice == best.dice


def test_slices_are_scored_case_by_case_as_their_voxels_say(
    toy_slices: Callable[..., SliceSet],
) -> None:
    class Bright(torch.nn.Module):
        """Calls lesion what is above 1.5 in the first sequence."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images[:, :1] - 1.5) * 100

    slices = toy_slices(cases=3, slices=6)
    scores = score_slices(Bright(), slices, CPU, where="in a test")
    images, masks = slices.gather(np.arange(18), CPU)
    marked = images[:, :1] >= 1.5
    expected = dice_by_case(
        slices.cases,
        (marked & (masks > 0)).sum(dim=(1, 2, 3)).numpy(),
        marked.sum(dim=(1, 2, 3)).numpy(),
        slices.lesion_voxels,
    )
    assert scores == expected
    assert 0 < fmean(scores.values()) < 1
