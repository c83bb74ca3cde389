"""Configuration as data: what an experiment, its preparation and a trial are made of.

A *record* is a frozen set of named settings. YAML comes in at one door, `load_experiment`;
unknown keys, wrong types and values out of range are all reported at once, in one error.
Below the door everything takes plain arguments or a record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from strokeseg.imaging.layouts.detection import Layout
from strokeseg.records.choices import Sampler
from strokeseg.records.record import Record, parse_record
from strokeseg.storage.yaml_file import load_yaml

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
_SideMm = Annotated[float, Field(ge=0.1, le=20)]
_Side = Annotated[int, Field(ge=32, le=2048, multiple_of=32)]
# Bounds that untrusted files must keep as well, before anything is allocated by them.
SpacingMm = tuple[_SideMm, _SideMm, _SideMm]
SliceSize = tuple[_Side, _Side]
Sequences = Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
MemberCount = Annotated[int, Field(ge=1, le=100)]


# What cases.csv and manifests call their other columns.
_OWN_COLUMNS = frozenset({"case", "patient", "subset", "fold", "mask", "lesion_ml"})


class NetworkConfig(Record):
    """What a network is built from, beside its number of input channels.

    Attributes:
        encoder: Encoder name as segmentation-models-pytorch knows it.
        encoder_depth: Number of down-sampling stages of the U-Net, 3 to 5.
    """

    encoder: str = "resnet34"
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5


class TrialConfig(NetworkConfig):
    """One point of a search space: all that tells one trial from another.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay of AdamW.
        pretrained: Whether the encoder starts from ImageNet weights.
        dice_weight: Weight of the soft Dice loss.
        cross_entropy_weight: Weight of the binary cross-entropy.
        focal_weight: Weight of the focal loss. The loss's weights are divided by their sum.
        batch_size: Slices a step.
        augmentation: Strength of the augmentation, from 0 (none) to 1.
        lesion_fraction: Fraction of an epoch's slices that show a lesion.
    """

    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    pretrained: bool = False
    dice_weight: NotNegative = 0.5
    cross_entropy_weight: NotNegative = 0.5
    focal_weight: NotNegative = 0.0
    batch_size: Count = 16
    augmentation: Share = 0.5
    lesion_fraction: Share = 0.5

    @property
    def network(self) -> NetworkConfig:
        """The part of it that a network is built from."""
        return NetworkConfig.model_validate(
            self.model_dump(include=set(NetworkConfig.model_fields))
        )

    @model_validator(mode="after")
    def _never_pure_dice(self) -> TrialConfig:
        if sum(getattr(self, name) for name in OTHER_LOSS_WEIGHTS) <= 0:
            raise ValueError(
                f"{' or '.join(OTHER_LOSS_WEIGHTS)} must be above 0: pure Dice loss has no "
                "gradient worth the name on slices without a lesion"
            )
        return self


# Of the loss's terms but Dice, which has no gradient on slices without a lesion.
OTHER_LOSS_WEIGHTS = tuple(
    name for name in TrialConfig.model_fields if name.endswith("_weight") and name != "dice_weight"
)


class PhantomConfig(Record):
    """Simulated cases that stand in for data.

    Attributes:
        cases: Number of cases.
        spacing_mm: Isotropic voxel size; 1 gives the size of ISLES 2015 SISS.
        seed: Equal seeds give equal bytes.
        lesion_free_share: Share of the cases without any lesion.
    """

    cases: Count = 16
    spacing_mm: Positive = 2.0
    seed: Seed = 0
    lesion_free_share: Share = 0.0


class DataConfig(Record):
    """Where the cases are and what they hold.

    Attributes:
        layout: `siss` (a folder of ISLES 2015 SISS), `isles22`, `bids`, `nnunet` (a raw data set)
            or `manifest` (a CSV file); `auto` tells it by the names of folders and files.
        path: The folder or CSV file, relative to the experiment's YAML file. Empty when
            `phantom` is given.
        phantom: Simulate the cases instead of reading them.
        simulated: Whether the cases at `path` are simulated; reports and model cards say so.
        sequences: MRI sequences in the order of the network's channels.
        lesion_labels: `binary` (the mask must hold 0 and 1 only), `any` (every label
            above 0 is lesion), or the list of labels that are lesion.
    """

    layout: Literal["auto", Layout] = "auto"
    path: str | None = None
    phantom: PhantomConfig | None = None
    simulated: bool = False
    sequences: Sequences = ("T1", "T2", "DWI", "FLAIR")
    lesion_labels: Literal["binary", "any"] | Annotated[tuple[Count, ...], Field(min_length=1)] = (
        "binary"
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.path is None) == (self.phantom is None):
            raise ValueError("give either path or phantom, and only one of them")
        if self.phantom is not None and self.layout not in {"auto", "siss"}:
            raise ValueError("phantom cases come in the siss layout")
        if len(set(self.sequences)) != len(self.sequences):
            raise ValueError(f"sequences must differ, got {list(self.sequences)}")
        if taken := sorted(_OWN_COLUMNS.intersection(self.sequences)):
            raise ValueError(f"sequences must not be named {taken}, which name other columns")
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether the cases are simulated, here or elsewhere."""
        return self.simulated or self.phantom is not None


class SplitConfig(Record):
    """How patients are divided; decided once and kept in `splits.json`.

    Attributes:
        folds: Number of folds for training and validation; a manifest's own folds replace it.
        validation_fold: The fold that scores the trials; the others train them.
        test_patients: The locked test set by name, or None to draw it.
        test_share: Share of the patients to draw for the test set when not named.
        seed: Seed of the draw.
        distinct_patients: Pairs of patients whose scans may resemble each other as if they
            were one, since they are known to be different people.
    """

    folds: Annotated[int, Field(ge=2)] = 5
    validation_fold: Annotated[int, Field(ge=0)] = 0
    test_patients: tuple[str, ...] | None = None
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: Seed = 0
    distinct_patients: tuple[tuple[str, str], ...] = ()

    @model_validator(mode="after")
    def _pairs_of_two(self) -> SplitConfig:
        if alone := sorted({one for one, other in self.distinct_patients if one == other}):
            raise ValueError(
                f"distinct_patients must pair two patients, got {alone} with themselves"
            )
        return self


class PreparationConfig(Record):
    """How a case becomes slices.

    Attributes:
        slice_size: Height and width of every slice in voxels, each a multiple of 32;
            None for the smallest that holds every case, axis by axis.
        spacing_mm: Voxel size (x, y, z) that every case is resampled to; None to keep
            the cases' own, which must then agree.
        reference: Sequence onto whose grid the others are resampled; None to insist
            that all of a case's volumes share one grid.
    """

    slice_size: SliceSize | None = None
    spacing_mm: SpacingMm | None = None
    reference: str | None = None


class SearchConfig(Record):
    """How one axis is searched, and how much that may spend.

    Attributes:
        space: YAML file of the search space, relative to the experiment's; `{axis}` in it
            stands for the axis.
        sampler: Who proposes: `tpe` (multivariate, in groups), `random`, `gp` (a Gaussian
            process) or `cmaes`.
        scoring: `fold` scores a trial on `splits.validation_fold` and may stop it at any
            rung of epochs; `k-fold` scores it on one fold after the other, each with a
            network of its own, and may stop it between them.
        trials: Number of trials.
        epochs: Epochs of a trial that is never stopped early; with `k-fold`, of each fold.
        slices_per_epoch: Training slices an epoch; None for all there are.
        grace_epochs: Epochs that every trial gets before it may be stopped; None for a
            ninth of `epochs`, but three at least: the first epochs say nothing.
        reduction_factor: Of the trials at a rung, one in this many goes on.
        confirm_trials: Best trials that run again when all trials are done.
        confirm_seeds: How often each of them does, every time with another seed.
        max_hours: Hours of searching after which it stops, all sessions together.
        target_dice: Score at which it stops.
        seed: Seed of the sampler and, with its number, of every trial.
    """

    space: str = "../../search_spaces/{axis}.yaml"
    sampler: Sampler = "tpe"
    scoring: Literal["fold", "k-fold"] = "fold"
    trials: Count = 20
    epochs: Count = 30
    slices_per_epoch: Count | None = None
    grace_epochs: Count | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    confirm_trials: Annotated[int, Field(ge=0)] = 2
    confirm_seeds: Count = 2
    max_hours: Positive | None = None
    target_dice: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed = 0

    @property
    def grace(self) -> int:
        """Epochs that every trial gets, chosen from the budget where they are not given."""
        return min(self.epochs, self.grace_epochs or max(3, round(self.epochs / 9)))


class EnsembleConfig(Record):
    """How trials become an ensemble.

    Attributes:
        choose: `guard` takes, of the votes and sets of members that promotion tries, each step
            that the validation patients support beyond chance; `best` takes whatever scored
            best on them; `vote` takes the hard majority vote of the axes as it is, with
            `members_per_axis` and `threshold`.
        candidates_per_axis: Best trials of an axis among which promotion chooses.
        members_per_axis: Best trials of an axis that the choice starts from.
        threshold: Probability from which an axis votes for lesion, where the choice starts.
    """

    choose: Literal["guard", "best", "vote"] = "guard"
    candidates_per_axis: MemberCount = 3
    members_per_axis: MemberCount = 1
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _candidates_hold_members(self) -> EnsembleConfig:
        if self.candidates_per_axis < self.members_per_axis:
            raise ValueError(
                f"candidates_per_axis must be members_per_axis ({self.members_per_axis}) or "
                f"more, got {self.candidates_per_axis}"
            )
        return self


class ExperimentConfig(Record):
    """All that `experiment.yaml` says; see the records of its parts."""

    data: DataConfig
    splits: SplitConfig = SplitConfig()
    preparation: PreparationConfig = PreparationConfig()
    search: SearchConfig = SearchConfig()
    ensemble: EnsembleConfig = EnsembleConfig()

    @model_validator(mode="after")
    def _reference_is_a_sequence(self) -> ExperimentConfig:
        reference = self.preparation.reference
        if reference is not None and reference not in self.data.sequences:
            raise ValueError(
                f"preparation.reference must be one of {list(self.data.sequences)}, "
                f"got {reference!r}"
            )
        return self


def load_experiment(path: Path) -> ExperimentConfig:
    """Read and check an `experiment.yaml`.

    Raises:
        UserError: When the file cannot be read or any setting in it is wrong.
    """
    return parse_record(ExperimentConfig, load_yaml(path), str(path))
