"""A search along one axis or several: its studies opened, run side by side, and ended.

Ray is started only for what needs it: encoders of a new study to check, or trials to run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strokeseg.compute.gpu_share import Auto
from strokeseg.compute.session import ray_session
from strokeseg.errors import UserError
from strokeseg.process.child_processes import child_processes
from strokeseg.process.interrupts import check_interrupt
from strokeseg.process.progress import Show
from strokeseg.records.config import SearchConfig
from strokeseg.records.experiment import Experiment, code_version
from strokeseg.records.leaderboard import LeaderboardRow, write_leaderboard
from strokeseg.training.encoders import FoundWeights, WantedEncoders, start_finding
from strokeseg.tuning.ledger import Ledger
from strokeseg.tuning.running import run_studies
from strokeseg.tuning.space_file import load_space
from strokeseg.tuning.study import PreparedSlices, open_study


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What a search is to do.

    Attributes:
        budget: How each axis is searched, and how much that may spend.
        spaces: The YAML file of each axis's search space.
        weights_dir: Where pretrained weights are looked for first.
        gpus_per_trial: GPUs of a trial; None for one, or for none where there are none.
        deterministic: Whether equal seeds must give equal numbers: one trial at a time.
        extend: Trials to add to studies that are done.
        new_study: Put studies that began with other settings aside and begin new ones, which
            inherit from them.
    """

    budget: SearchConfig
    spaces: Mapping[str, Path]
    weights_dir: Path | None = None
    gpus_per_trial: float | Auto | None = None
    deterministic: bool = False
    extend: int = 0
    new_study: bool = False


class Search:
    """A search of one experiment.

    Args:
        session: Leaves Ray, where it was started for this search, when it is closed.

    Raises:
        UserError: When a space is wrong.
    """

    def __init__(
        self, experiment: Experiment, settings: SearchSettings, session: ExitStack
    ) -> None:
        self._experiment = experiment
        self._settings = settings
        self._session = session
        self._spaces = {axis: load_space(path) for axis, path in settings.spaces.items()}
        # Begun at once, since it takes as long as starting Ray.
        self._pool = session.enter_context(child_processes(1))
        self._encoders: dict[WantedEncoders, Future[list[FoundWeights]]] = {}
        self._new = [axis for axis in settings.spaces if not experiment.journal(axis).exists()]
        for axis in self._new:
            self._start_finding(axis)

    def check_encoders(self) -> None:
        """Check the encoders, and find the weights, of the axes that have no study yet.

        Raises:
            UserError: When an encoder cannot be built, or weights cannot be had.
        """
        if not all(self._start_finding(axis).done() for axis in self._new):
            self._start_ray()
        for axis in self._new:
            self._find_encoders(axis)

    def run(
        self, data: PreparedSlices, progress: Callable[[str], AbstractContextManager[Show]]
    ) -> dict[str, list[LeaderboardRow]]:
        """Search, or go on with the search, and return each axis's leaderboard.

        Args:
            progress: Shows how far work under a title is.

        Raises:
            UserError: When a setting, weights or resources are not as they must be, or all
                trials of an axis fail for one reason.
            KeyboardInterrupt: When it was interrupted; what was done so far is kept.
        """
        settings = self._settings
        with ExitStack() as opened:
            studies = {
                axis: opened.enter_context(
                    open_study(
                        *(self._experiment, axis, data),
                        budget=settings.budget,
                        space=space,
                        find_encoders=partial(self._find_encoders, axis),
                        extend=settings.extend,
                        new_study=settings.new_study,
                    )
                )
                for axis, space in self._spaces.items()
            }
            ledgers = {axis: study.ledger for axis, study in studies.items()}
            unfinished = {
                axis: study for axis, study in studies.items() if not study.ledger.is_done()
            }
            if unfinished:
                self._start_ray()
                with progress(f"Searching {', '.join(unfinished)}, epochs") as show:
                    run_studies(
                        unfinished,
                        self._experiment,
                        data,
                        budget=settings.budget,
                        gpus_per_trial=settings.gpus_per_trial,
                        deterministic=settings.deterministic,
                        code_version=code_version(),
                        show=show,
                    )
            for axis, ledger in ledgers.items():
                write_leaderboard(self._experiment.leaderboard_csv(axis), ledger.rows())
            _check_ended(self._experiment, ledgers)
            check_interrupt()
            return {axis: ledger.rows() for axis, ledger in ledgers.items()}

    def _start_ray(self) -> None:
        # Changes nothing where it runs already.
        self._session.enter_context(ray_session(self._experiment.folder))

    def _start_finding(self, axis: str) -> Future[list[FoundWeights]]:
        wanted = self._spaces[axis].wanted_encoders(
            self._settings.spaces[axis],
            len(self._experiment.config.data.sequences),
            self._settings.weights_dir,
        )
        if wanted not in self._encoders:
            self._encoders[wanted] = start_finding(wanted, self._pool)
        return self._encoders[wanted]

    def _find_encoders(self, axis: str) -> dict[str, FoundWeights]:
        return {found.encoder: found for found in self._start_finding(axis).result()}


def _check_ended(experiment: Experiment, ledgers: Mapping[str, Ledger]) -> None:
    """Say why axes have ended before all of their trials, if any has."""
    done = _done(ledgers)
    for axis, ledger in ledgers.items():
        if reason := ledger.halted:
            raise UserError(f"{reason}. {done}; the same command goes on from there")
        if reason := ledger.hopeless():
            raise UserError(
                f"{experiment.leaderboard_csv(axis)}: every trial failed for one reason: {reason}; "
                f"mend it. {done}; the same command goes on with the others, and one with "
                "--extend or another space with more"
            )
    if not all(ledger.is_done() for ledger in ledgers.values()):
        print(f"{done}; the same command goes on from there", file=sys.stderr)
        raise KeyboardInterrupt
    for axis, ledger in ledgers.items():
        if ledger.remaining() and (reason := ledger.out_of_time() or ledger.reached_target()):
            print(f"Searching {axis} stopped: {reason}; {_done({axis: ledger})}")
        rows = ledger.rows()
        if rows and all(row.state == "FAIL" for row in rows):
            raise UserError(
                f"{experiment.leaderboard_csv(axis)}: all {len(rows)} trials failed, the "
                f"first with: {rows[0].reason}; mend it, move "
                f"{experiment.search_folder(axis)} away, and search again"
            )


def _done(ledgers: Mapping[str, Ledger]) -> str:
    trials = sum(ledger.trials for ledger in ledgers.values())
    remaining = sum(ledger.remaining() for ledger in ledgers.values())
    return f"{trials - remaining} of {trials} trials are done"
