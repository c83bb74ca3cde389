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
        of_methods: Whether it stands where methods are compared: on the terminal, in the report's
            tables and in the model card.
        of_cases: Whether it stands in the report's table of cases.
    """

    title: str
    unit: str = ""
    better: Literal["high", "low"] | None = None
    definition: str
    of_methods: bool = False
    of_cases: bool = False

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


METRICS: Mapping[str, MetricName] = {
    "dice": MetricName(
        title="Dice",
        better="high",
        definition="2 TP / (true + predicted voxels)",
        of_methods=True,
        of_cases=True,
    ),
    "sensitivity": MetricName(
        title="sensitivity",
        better="high",
        definition="TP / true voxels",
        of_methods=True,
        of_cases=True,
    ),
    "precision": MetricName(
        title="precision",
        better="high",
        definition="TP / predicted voxels",
        of_methods=True,
        of_cases=True,
    ),
    "hd95_mm": MetricName(
        title="HD95",
        unit="mm",
        better="low",
        definition="95th percentile of the border distances of both directions, pooled",
        of_methods=True,
        of_cases=True,
    ),
    "hd_mm": MetricName(
        title="HD",
        unit="mm",
        better="low",
        definition="largest border distance",
    ),
    "assd_mm": MetricName(
        title="ASSD",
        unit="mm",
        better="low",
        definition=(
            "mean of the border distances of both directions, pooled; under the "
            "policy isles15, mean of the two directions' means"
        ),
        of_methods=True,
    ),
    "volume_difference_ml": MetricName(
        title="volume difference",
        unit="ml",
        better="low",
        definition="absolute difference of the lesions' volumes",
        of_methods=True,
    ),
    "lesion_f1": MetricName(
        title="lesion F1",
        better="high",
        definition="F1 over 26-connected lesions; one voxel of overlap finds a lesion",
        of_methods=True,
    ),
    "lesion_count_difference": MetricName(
        title="lesion count difference",
        better="low",
        definition="absolute difference of the numbers of lesions",
    ),
    "accuracy": MetricName(
        title="voxel accuracy",
        better="high",
        definition="share of all voxels that both masks call alike",
    ),
    "accuracy_empty": MetricName(
        title="voxel accuracy of an empty mask",
        definition="what accuracy is without any prediction",
    ),
    "true_ml": MetricName(
        title="true volume",
        unit="ml",
        definition="volume of the true lesion",
        of_cases=True,
    ),
    "predicted_ml": MetricName(
        title="predicted volume",
        unit="ml",
        definition="volume of the predicted lesion",
        of_cases=True,
    ),
    "true_lesions": MetricName(
        title="true lesions",
        definition="number of true lesions",
        of_cases=True,
    ),
    "predicted_lesions": MetricName(
        title="predicted lesions",
        definition="number of predicted lesions",
        of_cases=True,
    ),
    "missed_lesions": MetricName(
        title="missed lesions",
        better="low",
        definition="true lesions without a predicted voxel",
        of_cases=True,
    ),
    "false_lesions": MetricName(
        title="false lesions",
        better="low",
        definition="predicted lesions without a true voxel",
        of_cases=True,
    ),
    "missed": MetricName(
        title="missed cases",
        better="low",
        definition="cases in which exactly one mask is empty",
    ),
}
OF_METHODS = tuple(name for name, metric in METRICS.items() if metric.of_methods)
OF_CASES = tuple(name for name, metric in METRICS.items() if metric.of_cases)
