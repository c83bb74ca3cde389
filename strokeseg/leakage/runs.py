"""What a measurement of leakage has to train, and what it has found already.

A *run* is one configuration, one seed and one *level* of division (see
`leakage.divisions`). Its *inputs* are all that its scores depend on; scores are kept
under their hash as soon as the run is done, so that a measurement that was interrupted,
or is asked for more, trains only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strokeseg.errors import UserError
from strokeseg.records.config import SearchConfig, TrialConfig
from strokeseg.records.experiment import Experiment
from strokeseg.records.leaderboard import DEFAULT, LeaderboardRow, ranked
from strokeseg.records.leakage import LEVELS, LeakageRow, LeakageScores
from strokeseg.records.record import parse_record
from strokeseg.storage.files import read_json, values_sha256, write_json
from strokeseg.training.pretrained import EncoderWeights, find_encoder_weights
from strokeseg.tuning.space import Space


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A configuration to measure, and what it is called.

    Attributes:
        name: Such as `trial 3 (best)`.
        config: The configuration.
        weights: Its encoder's first weights; None for random ones.
    """

    name: str
    config: TrialConfig
    weights: EncoderWeights | None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The data of a measurement.

    Attributes:
        slices_folder: The Parquet files.
        axis: The axis that the slices are cut along.
        folds: The cases of every fold that a search trains on; all of them are the pool.
        unseen_cases: The cases of the fold that a search validates on.
        channels: Number of sequences.
        fingerprint: Hash of the prepared data.
    """

    slices_folder: Path
    axis: str
    folds: tuple[tuple[str, ...], ...]
    unseen_cases: tuple[str, ...]
    channels: int
    fingerprint: str

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases of the pool."""
        return tuple(case for fold in self.folds for case in fold)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training to be done.

    Attributes:
        configuration: Name of the configuration.
        config: The configuration.
        level: `slice` or `patient`.
        seed: Of the shuffle, the first weights and the training.
        validation_cases: The pool's cases that validate at patient level.
        epochs: Epochs to train.
        slices_per_epoch: Slices an epoch; None for all that train.
    """

    configuration: str
    config: TrialConfig
    level: str
    seed: int
    validation_cases: tuple[str, ...]
    epochs: int
    slices_per_epoch: int | None


def choose_configurations(
    space: Space, rows: Sequence[LeaderboardRow], weights_dir: Path | None
) -> list[Configuration]:
    """Return the study's default and, if there is another, its best complete trial.

    Raises:
        UserError: When pretrained weights that one of them starts from cannot be had.
    """
    first = next((row for row in rows if row.origin == DEFAULT), None)
    complete = (row for row in ranked(rows) if row.state == "COMPLETE" and row.confirms is None)
    best = next(complete, None)
    name, config = "default", space.default_config()
    if first is not None:
        name, config = f"trial {first.trial} (default)", first.config
    chosen = {name: config}
    if best is not None and first is not None and best.trial == first.trial:
        chosen = {f"trial {best.trial} (default and best)": config}
    elif best is not None and best.config != config:
        chosen[f"trial {best.trial} (best)"] = best.config
    return [
        Configuration(
            name=name,
            config=config,
            weights=find_encoder_weights(config.encoder, weights_dir)
            if config.pretrained
            else None,
        )
        for name, config in chosen.items()
    ]


def plan_runs(
    configurations: Sequence[Configuration], pool: Pool, budget: SearchConfig, seeds: int
) -> list[Run]:
    """Return every run of a measurement; each seed validates on the next of the pool's folds.

    Raises:
        UserError: When the pool cannot be divided by patient.
    """
    if len(pool.folds) < 2:
        raise UserError(
            "measuring leakage takes three folds or more, one of them for patients never seen, "
            f"got {len(pool.folds) + 1}; set splits.folds under another experiment name"
        )
    return [
        Run(
            configuration=configuration.name,
            config=configuration.config,
            level=level,
            seed=budget.seed + number,
            validation_cases=pool.folds[number % len(pool.folds)],
            epochs=budget.epochs,
            slices_per_epoch=budget.slices_per_epoch,
        )
        for configuration in configurations
        for number in range(seeds)
        for level in LEVELS
    ]


class LeakageScoreStore:
    """The scores of a pool's runs on disk, each under the hash of its run's inputs."""

    def __init__(
        self,
        experiment: Experiment,
        pool: Pool,
        configurations: Sequence[Configuration],
        code_version: str,
    ) -> None:
        """Look for scores, and keep them, in an experiment's folder.

        Args:
            pool: The data that every run uses.
            configurations: All that the runs name.
            code_version: Version of this code, for the record.
        """
        self._experiment = experiment
        self._pool = pool
        self._code_version = code_version
        self._weights = {
            configuration.name: configuration.weights.sha256 if configuration.weights else None
            for configuration in configurations
        }

    def read(self, run: Run) -> LeakageScores | None:
        """Return a run's scores, or None when it has none.

        Raises:
            UserError: When its file is damaged.
        """
        path = self._path(run)
        if not path.exists():
            return None
        values = read_json(path)
        scores = values.get("scores") if isinstance(values, dict) else None
        if not isinstance(scores, dict):
            raise UserError(f"{path}: holds no scores; delete it to train this run again")
        return parse_record(LeakageScores, scores, str(path))

    def keep(self, run: Run, scores: LeakageScores) -> None:
        """Write a run's scores, with what made them."""
        content = {
            "inputs": self._inputs(run),
            "code_version": self._code_version,
            "scores": scores.model_dump(),
        }
        write_json(self._path(run), content)

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs without scores."""
        return [run for run in runs if self.read(run) is None]

    def rows(self, runs: Sequence[Run], failures: Mapping[Run, str]) -> list[LeakageRow]:
        """Return a row a run, with its scores, or else why it failed."""
        return [
            LeakageRow(
                configuration=run.configuration,
                level=run.level,
                seed=run.seed,
                config=run.config,
                scores=self.read(run),
                reason=failures.get(run, ""),
            )
            for run in runs
        ]

    def _path(self, run: Run) -> Path:
        digest = values_sha256(self._inputs(run))[:16]
        name = f"{run.level}-seed{run.seed}-{digest}"
        return self._experiment.leakage_run(self._pool.axis, name)

    def _inputs(self, run: Run) -> dict[str, Any]:
        return {
            "config": run.config.model_dump(mode="json"),
            "weights": self._weights[run.configuration],
            "level": run.level,
            "seed": run.seed,
            "epochs": run.epochs,
            "slices_per_epoch": run.slices_per_epoch,
            "axis": self._pool.axis,
            "data": self._pool.fingerprint,
            "pool": sorted(self._pool.cases),
            "validation_cases": sorted(run.validation_cases),
            "unseen_cases": sorted(self._pool.unseen_cases),
        }
