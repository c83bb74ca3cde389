"""The names of the metrics, as tables and pages print them, and of the policies (`metrics`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Policy: TypeAlias = Literal["isles22", "isles15", "nnunet"]
POLICIES: tuple[str, ...] = get_args(Policy)


@dataclass(frozen=True, kw_only=True)
class MetricName:
    """How a field of `metrics.Scores` is presented.

    Attributes:
        title: Short name.
        unit: `mm`, `ml`, or empty.
        better: Whether `high` or `low` values are better; None where neither is.
        definition: One sentence.
    """

    title: str
    unit: str = ""
    better: Literal["high", "low"] | None = None
    definition: str

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _name(
    title: str, better: Literal["high", "low"] | None, definition: str, unit: str = ""
) -> MetricName:
    return MetricName(title=title, unit=unit, better=better, definition=definition)


METRICS: Mapping[str, MetricName] = {
    "dice": _name("Dice", "high", "2 TP / (true + predicted voxels)"),
    "sensitivity": _name("sensitivity", "high", "TP / true voxels"),
    "precision": _name("precision", "high", "TP / predicted voxels"),
    "hd95_mm": _name(
        "HD95", "low", "95th percentile of the border distances of both directions, pooled", "mm"
    ),
    "hd_mm": _name("HD", "low", "largest border distance", "mm"),
    "assd_mm": _name(
        "ASSD",
        "low",
        "mean of the border distances of both directions, pooled; under the policy isles15, mean "
        "of the two directions' means",
        "mm",
    ),
    "volume_difference_ml": _name(
        "volume difference", "low", "absolute difference of the lesions' volumes", "ml"
    ),
    "lesion_f1": _name(
        "lesion F1", "high", "F1 over 26-connected lesions; one voxel of overlap finds a lesion"
    ),
    "lesion_count_difference": _name(
        "lesion count difference", "low", "absolute difference of the numbers of lesions"
    ),
    "accuracy": _name("voxel accuracy", "high", "share of all voxels that both masks call alike"),
    "accuracy_empty": _name(
        "voxel accuracy of an empty mask", None, "what accuracy is without any prediction"
    ),
    "true_ml": _name("true volume", None, "volume of the true lesion", "ml"),
    "predicted_ml": _name("predicted volume", None, "volume of the predicted lesion", "ml"),
    "true_lesions": _name("true lesions", None, "number of true lesions"),
    "predicted_lesions": _name("predicted lesions", None, "number of predicted lesions"),
    "missed_lesions": _name("missed lesions", "low", "true lesions without a predicted voxel"),
    "false_lesions": _name("false lesions", "low", "predicted lesions without a true voxel"),
    "missed": _name("missed cases", "low", "cases in which exactly one mask is empty"),
}
