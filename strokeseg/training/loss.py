"""The training loss: a weighted sum against class imbalance.

Lesion voxels are rare. *Dice* pays for overlap whatever the lesion's size,
*cross-entropy* pays for every voxel alike, and the *focal* loss is cross-entropy that
lets the easy voxels go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from segmentation_models_pytorch.losses import BINARY_MODE, DiceLoss, FocalLoss
from torch import Tensor, nn

from strokeseg.records.config import TrialConfig

# A term takes logits and target (B, 1, H, W) and gives a scalar; the field `<name>_weight` of a
# trial's configuration is its weight.
TERMS: Mapping[str, Callable[[], nn.Module]] = {
    "dice": lambda: DiceLoss(BINARY_MODE, smooth=1.0),
    "cross_entropy": nn.BCEWithLogitsLoss,
    "focal": lambda: FocalLoss(BINARY_MODE, gamma=2.0),
}


def loss_weights(config: TrialConfig) -> dict[str, float]:
    """Return the weight of each term."""
    return {term: getattr(config, f"{term}_weight") for term in TERMS}


class MixedLoss(nn.Module):
    """Weighted mean of the terms: soft Dice loss, binary cross-entropy and focal loss.

    The soft Dice is taken over the whole batch: with overlap o, false positives p and
    false negatives n, (o + 1) / (o + p / 2 + n / 2 + 1). A batch without any lesion
    contributes 0 to the loss. The focal loss has gamma 2 and no class weight.

    Source:
        Dice: Milletari et al., V-Net, 3DV 2016. Focal: Lin et al., Focal Loss for Dense
        Object Detection, ICCV 2017.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Set the weights by term, which are divided by their sum.

        Raises:
            ValueError: When a weight is negative or all are 0.
        """
        super().__init__()
        total = sum(weights.values())
        if min(weights.values()) < 0 or total <= 0:
            raise ValueError(f"loss weights must not be negative nor all 0, got {dict(weights)}")
        self.weights = {term: weight / total for term, weight in weights.items() if weight > 0}
        self._losses = nn.ModuleDict({term: TERMS[term]() for term in self.weights})

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare logits with the truth.

        Args:
            logits: (B, 1, H, W) floating, any number; computed in float32.
            target: (B, 1, H, W) float32, 0 or 1.

        Returns:
            The weighted mean, and each term that has a weight, unweighted, by its name;
            all of them scalars.
        """
        logits = logits.float()
        terms = {term: self._losses[term](logits, target) for term in self.weights}
        total = sum(
            (weight * terms[term] for term, weight in self.weights.items()),
            start=logits.new_zeros(()),
        )
        return total, terms
