"""The training loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from strokeseg.training.loss import TERMS, MixedLoss

# Probabilities 1/2 and 3/4 where the truth is 1 and 0: a logit of 0, and one of log 3.
_LOGITS = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
_TRUTH = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
# Overlap 1/2, false positives 3/4, false negatives 1/2, smoothed by 1: the Dice is
# (1/2 + 1) / (1/2 + 3/8 + 1/4 + 1) = 12/17.
_DICE = 5 / 17
# -log(1/2) and -log(1/4).
_CROSS_ENTROPY = (math.log(2) + math.log(4)) / 2
# The same two, times (1 - 1/2)^2 and (1 - 1/4)^2.
_FOCAL = (math.log(2) / 4 + math.log(4) * 9 / 16) / 2


def _mixed(*weights: float) -> MixedLoss:
    return MixedLoss(dict(zip(TERMS, weights, strict=True)))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 0, 0), _DICE),
        ((0, 1, 0), _CROSS_ENTROPY),
        ((0, 0, 1), _FOCAL),
        ((1, 2, 1), _DICE / 4 + _CROSS_ENTROPY / 2 + _FOCAL / 4),
    ],
)
def test_the_loss_is_the_weighted_mean_of_its_terms(
    weights: tuple[float, float, float], expected: float
) -> None:
    total, _ = _mixed(*weights)(_LOGITS, _TRUTH)
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_only_terms_with_a_weight_are_reported_and_unweighted() -> None:
    _, terms = _mixed(0.1, 0.1, 0)(_LOGITS, _TRUTH)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"dice": _DICE, "cross_entropy": _CROSS_ENTROPY}, rel=1e-5
    )


def test_a_batch_without_lesion_has_no_dice_loss() -> None:
    _, terms = _mixed(1, 1, 0)(_LOGITS, torch.zeros_like(_TRUTH))
    assert terms["dice"].item() == 0


@pytest.mark.parametrize("weights", [(0, 0, 0), (1, -1, 1)])
def test_weights_that_mean_nothing_are_refused(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="loss weights"):
        _mixed(*weights)
