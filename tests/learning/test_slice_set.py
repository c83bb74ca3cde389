"""Slices in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from strokeseg.learning.slice_set import SliceSet, hold_brain


def _numbered() -> SliceSet:
    """Blocks of 2 and 3 slices; every voxel of slice i is i; slice 0 is empty."""
    images = np.broadcast_to(
        np.arange(5, dtype=np.float16)[:, None, None, None], (5, 2, 4, 6)
    ).copy()
    masks = (images[:, 0] > 2).astype(np.uint8)
    images.setflags(write=False)
    return SliceSet(
        images=(images[:2], images[2:]),
        masks=(masks[:2], masks[2:]),
        cases=np.array(["a", "a", "b", "c", "c"]),
        lesion_voxels=np.array([0, 0, 0, 24, 24]),
    )


def test_gather_takes_slices_across_blocks_in_the_order_asked() -> None:
    images, masks = _numbered().gather(np.array([4, 0, 2, 4]), "cpu")
    assert images.shape == (4, 2, 4, 6)
    assert masks.shape == (4, 1, 4, 6)
    assert images.dtype == masks.dtype == torch.float32
    assert images[:, 0, 0, 0].tolist() == [4, 0, 2, 4]
    assert masks[:, 0, 0, 0].tolist() == [1, 0, 0, 1]


def test_select_shares_the_blocks_and_counts_from_its_own_start() -> None:
    whole = _numbered()
    chosen = whole.select(["c", "b"])
    assert len(chosen) == 3
    assert chosen.cases.tolist() == ["b", "c", "c"]
    assert chosen.lesion_voxels.tolist() == [0, 24, 24]
    assert chosen.images[1] is whole.images[1]
    assert chosen.gather(np.array([0, 2]), "cpu")[0][:, 0, 0, 0].tolist() == [2, 4]
    assert chosen.select(["c"]).gather(np.array([0]), "cpu")[0][0, 0, 0, 0] == 3


def test_slices_of_zeros_hold_no_brain() -> None:
    assert _numbered().hold_brain().tolist() == [False, True, True, True, True]
    assert _numbered().select(["a"]).hold_brain().tolist() == [False, True]
    below_zero = np.full((1, 1, 2, 2), -1, dtype=np.float16)
    assert hold_brain(below_zero).tolist() == [True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": (np.zeros((2, 4, 6), np.uint8),)}, "block by block"),
        ({"cases": np.array(["a"])}, "5 slices"),
        ({"images": ()}, "one block"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], words: str) -> None:
    whole = _numbered()
    parts = {name: getattr(whole, name) for name in ("images", "masks", "cases", "lesion_voxels")}
    with pytest.raises(ValueError, match=words):
        SliceSet(**(parts | change))
