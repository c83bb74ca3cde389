"""What the records of `evaluate` and `promote` hold, as later commands read them again.

They are plain values in JSON files, which anybody may have changed: a file is checked against its
type when it is read. What is of no use to a later command is not checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from strokeseg.imaging.metric_names import METRICS

Kind: TypeAlias = Literal["member", "axis", "vote", "comparison", "baseline"]


def _name_all_metrics(values: dict[str, Any]) -> dict[str, Any]:
    if values.keys() != METRICS.keys():
        differing = ", ".join(sorted(values.keys() ^ METRICS.keys()))
        raise ValueError(f"must name every metric and no other, {differing} not so")
    return values


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Number: TypeAlias = _Finite | None
_Count = Annotated[int, Field(ge=0)]


class KeptRow(TypedDict):
    """A score row as JSON has it."""

    case: str
    patient: str
    method: str
    kind: Kind
    values: Annotated[dict[str, _Number], AfterValidator(_name_all_metrics)]


class _Statistic(TypedDict):
    mean: _Number
    median: _Number
    q1: _Number
    q3: _Number
    low: _Number
    high: _Number
    cases: _Count


class _Mean(TypedDict):
    mean: _Number
    low: _Number
    high: _Number
    cases: _Count


class _Lesions(TypedDict):
    true: _Count
    predicted: _Count
    missed: _Count
    false: _Count


class _Method(TypedDict):
    kind: Kind
    cases: _Count
    metrics: Annotated[dict[str, _Statistic], AfterValidator(_name_all_metrics)]
    lesions: _Lesions
    missed_cases: _Count


class _Dice(TypedDict):
    dice: _Mean


class _Size(TypedDict):
    low_ml: _Finite
    high_ml: _Number
    cases: _Count
    methods: dict[str, _Dice]


class _Test(TypedDict):
    first: str
    second: str
    metric: str
    cases: _Count
    patients: _Count
    mean_difference: _Number
    low: _Number
    high: _Number
    p: _Finite
    test: str


class _Correlation(TypedDict):
    rho: _Number
    p: _Number
    cases: _Count


class _Voxel(TypedDict):
    mean_auroc: _Number
    cases: _Count


class _CaseDisagreement(TypedDict):
    case: str
    mean_disagreement: _Number
    auroc: _Number
    dice: _Number


class _Disagreement(TypedDict):
    spearman: _Correlation
    voxel: _Voxel
    cases: list[_CaseDisagreement]


class _Bootstrap(TypedDict):
    samples: _Count
    seed: int
    confidence: _Finite


class Summary(TypedDict):
    """What `summary.json` says."""

    experiment: str
    on: Literal["test", "validation"]
    caution: str | None
    policy: str
    ensemble_sha256: str
    splits_hash: str
    preparation_hash: str
    code_version: str
    versions: dict[str, str]
    cases: _Count
    patients: _Count
    failed: dict[str, str]
    baselines_failed: dict[str, str]
    bootstrap: _Bootstrap
    methods: dict[str, _Method]
    by_size: list[_Size]
    tests: list[_Test]
    disagreement: _Disagreement


class StudyRecord(TypedDict):
    """What `study.json` says."""

    sampler: str
    scoring: Literal["fold", "k-fold"]
    epochs: _Count
    slices_per_epoch: _Count | None
    grace_epochs: _Count
    seed: int
    trials: _Count


class _Step(TypedDict):
    name: str
    tried: _Count
    best: str
    dice_before: _Finite
    dice_after: _Finite
    gain: _Finite
    p: _Finite
    taken: bool


class _LeftOut(TypedDict):
    dice_start: _Finite
    dice_chosen: _Finite


class _PlainChoice(TypedDict):
    method: Literal["vote"]
    patients: _Count
    steps: Annotated[list[_Step], Field(max_length=0)]
    caveat: str


class _TriedChoice(TypedDict):
    method: Literal["guard", "best"]
    patients: _Count
    dice_start: _Finite
    dice_chosen: _Finite
    steps: list[_Step]
    left_out: _LeftOut | None
    test: str
    significant_p: _Finite
    smallest_p: _Finite
    caveat: str


# What `choice.json` says.
ChoiceRecord: TypeAlias = Annotated[_PlainChoice | _TriedChoice, Field(discriminator="method")]
