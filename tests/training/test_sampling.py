"""The draw of an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from strokeseg.training.sampling import cut_batches, draw_epoch

_HAS_LESION = np.array([True] * 4 + [False] * 16)


@pytest.mark.parametrize(("share", "with_lesion"), [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_an_epoch_holds_the_exact_share_of_lesions(share: float, with_lesion: int) -> None:
    drawn = draw_epoch(_HAS_LESION, 12, share, np.random.default_rng(0))
    assert len(drawn) == 12
    assert _HAS_LESION[drawn].sum() == with_lesion


def test_slices_repeat_only_when_all_were_drawn_and_then_evenly() -> None:
    drawn = draw_epoch(_HAS_LESION, 20, 0.5, np.random.default_rng(0))
    counts = Counter(drawn.tolist())
    # 10 draws from 4 slices with lesion: each twice, two of them three times.
    assert sorted(counts[slice_] for slice_ in range(4)) == [2, 2, 3, 3]
    # 10 draws from 16 without: none twice.
    assert all(counts[slice_] <= 1 for slice_ in range(4, 20))


def test_the_draw_is_shuffled_and_follows_its_generator() -> None:
    first, again, other = (
        draw_epoch(_HAS_LESION, 20, 0.5, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    kinds = _HAS_LESION[first].tolist()
    assert kinds != sorted(kinds) != kinds[::-1]


@pytest.mark.parametrize("has", [True, False])
def test_a_missing_kind_is_replaced_by_the_other(has: bool) -> None:
    assert sorted(draw_epoch(np.full(6, has), 6, 0.5, np.random.default_rng(0))) == list(range(6))


@pytest.mark.parametrize(
    ("slices", "batch_size", "sizes"),
    [(8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_a_last_batch_of_one_is_left_out(slices: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in cut_batches(np.arange(slices), batch_size)] == sizes
