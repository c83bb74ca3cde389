"""One experiment: its settings and every file name in it.

An *experiment* is what one `experiment.yaml` says; all that comes of it lies under
`<storage>/<experiment>/`. Other modules take paths from here and never join one.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import strokeseg
from strokeseg.errors import UserError
from strokeseg.records.config import ExperimentConfig, load_experiment
from strokeseg.storage.files import unwritable
from strokeseg.storage.remote_copy import RemoteCopy, fetched, is_uri, remote_copy_of

_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to do, and the place of everything that comes of it.

    Attributes:
        name: Name of the experiment.
        config: Its settings.
        config_path: The YAML file that they came from; relative paths in it start there.
        folder: `<storage>/<name>`.
        data_path: The cases' folder or manifest.
        remote_copy: Of its storage, where that is a URI; None for a folder.
    """

    name: str
    config: ExperimentConfig
    config_path: Path
    folder: Path
    data_path: Path
    remote_copy: RemoteCopy | None = None

    @property
    def log_folder(self) -> Path:
        """What Ray, Optuna and the commands had to say."""
        return self.folder / "logs"

    @property
    def prepared_folder(self) -> Path:
        """All that `prepare` writes; complete when `preparation.json` is in it."""
        return self.folder / "prepared"

    @property
    def slices_folder(self) -> Path:
        """Parquet files, partitioned by axis and fold."""
        return self.prepared_folder / "slices"

    @property
    def cases_csv(self) -> Path:
        """A row a prepared case: name, patient, subset of the split, and its files."""
        return self.prepared_folder / "cases.csv"

    @property
    def splits_json(self) -> Path:
        """Folds and test set, by patient."""
        return self.prepared_folder / "splits.json"

    @property
    def preparation_json(self) -> Path:
        """What made the slices: settings, fingerprints of the files, versions."""
        return self.prepared_folder / "preparation.json"

    @property
    def validation_csv(self) -> Path:
        """A row a case that was found: valid or not, and why."""
        return self.prepared_folder / "validation.csv"

    @property
    def similarity_csv(self) -> Path:
        """A row a prepared case: the case of another patient that resembles it most."""
        return self.prepared_folder / "similarity.csv"

    def space_path(self, axis: str) -> Path:
        """The YAML file of an axis's search space."""
        return self.config_path.parent / self.config.search.space.replace("{axis}", axis)

    def search_folder(self, axis: str) -> Path:
        """All that the search along one axis writes."""
        return self.folder / "search" / axis

    def driver_lock(self, axis: str) -> Path:
        """Held by the one process that drives an axis's study."""
        return self.folder / "search" / f"{axis}.lock"

    def earlier_search_folders(self, axis: str) -> list[Path]:
        """Studies of an axis that a changed space has ended, oldest first."""
        found = (self.folder / "search" / "earlier").glob(f"{axis}-*")
        return sorted((folder for folder in found if _number_of(folder)), key=_number_of)

    def next_earlier_search_folder(self, axis: str) -> Path:
        """Where the axis's study goes when a changed space ends it."""
        earlier = self.earlier_search_folders(axis)
        number = _number_of(earlier[-1]) + 1 if earlier else 1
        return self.folder / "search" / "earlier" / f"{axis}-{number}"

    def journal(self, axis: str) -> Path:
        """Optuna's journal: the truth about an axis's study."""
        return journal_in(self.search_folder(axis))

    def study_json(self, axis: str) -> Path:
        """How the axis's study is searched, options of the command line included."""
        return self.search_folder(axis) / "study.json"

    def leaderboard_csv(self, axis: str) -> Path:
        """A row a trial of an axis."""
        return self.search_folder(axis) / "leaderboard.csv"

    def trials_folder(self, axis: str) -> Path:
        """One folder a trial, by its number."""
        return trials_in(self.search_folder(axis))

    def tensorboard_folder(self, axis: str) -> Path:
        """TensorBoard's files, one folder a trial."""
        return self.search_folder(axis) / "tensorboard"

    def importances_csv(self, axis: str) -> Path:
        """A row a parameter that was searched, once there are trials enough to tell."""
        return self.search_folder(axis) / "importances.csv"

    def leakage_csv(self, axis: str) -> Path:
        """A row a run of the measurement of leakage."""
        return self.search_folder(axis) / "leakage.csv"

    def leakage_run(self, axis: str, name: str) -> Path:
        """What one finished run of the measurement found, by the run's name."""
        return self.search_folder(axis) / "leakage" / f"{name}.json"

    @property
    def ensemble_folder(self) -> Path:
        """The promoted members and how they vote."""
        return self.folder / "ensemble"

    @property
    def choice_json(self) -> Path:
        """How the ensemble was chosen: each step, what it brought, and whether it was taken."""
        return self.ensemble_folder / "choice.json"

    @property
    def candidates_folder(self) -> Path:
        """The candidates' probabilities of the validation cases; made again at need."""
        return self.folder / "ensemble-candidates"

    def evaluation_folder(self, subset: str) -> Path:
        """Scores and masks of the `test` cases, or beside them those of the `validation`."""
        return self.folder / ("evaluation" if subset == "test" else f"evaluation-{subset}")

    def metrics_csv(self, subset: str) -> Path:
        """A row a case and method."""
        return self.evaluation_folder(subset) / "metrics.csv"

    def summary_json(self, subset: str) -> Path:
        """Means over the cases, and what was evaluated."""
        return self.evaluation_folder(subset) / "summary.json"

    def masks_folder(self, subset: str) -> Path:
        """Predicted masks as NIfTI."""
        return self.evaluation_folder(subset) / "masks"

    def uncertainty_folder(self, subset: str) -> Path:
        """Maps of the axes' disagreement as NIfTI."""
        return self.evaluation_folder(subset) / "uncertainty"

    def scored_folder(self, subset: str) -> Path:
        """What was found of each case, from which an evaluation goes on."""
        return self.evaluation_folder(subset) / "scored"

    def baselines_folder(self, subset: str) -> Path:
        """What masks from elsewhere scored, a file a baseline."""
        return self.evaluation_folder(subset) / "baselines"

    @property
    def report_html(self) -> Path:
        """The experiment's report: one file that needs no other."""
        return self.folder / "report" / "index.html"

    @property
    def report_md(self) -> Path:
        """The experiment's report as Markdown."""
        return self.folder / "report" / "report.md"

    @property
    def bundle_zip(self) -> Path:
        """The exported ensemble."""
        return self.folder / "bundle.zip"

    @property
    def nnunet_raw(self) -> Path:
        """The same cases and splits as nnU-Net's raw data set, for `export --to nnunet`."""
        return self.folder / "nnunet_raw"


def trial_folder(trials_folder: Path, number: int) -> Path:
    """The folder of one trial."""
    return trials_folder / f"{number:04d}"


def journal_in(search_folder: Path) -> Path:
    """The journal in the folder of a study, present or earlier."""
    return search_folder / "journal.log"


def trials_in(search_folder: Path) -> Path:
    """The trials' folders in the folder of a study, present or earlier."""
    return search_folder / "trials"


def trial_weights(trials_folder: Path, number: int, fold: int | None = None) -> Path:
    """A trial's best weights as a member file; with k-fold scoring those of one fold."""
    name = "best.safetensors" if fold is None else f"best-fold{fold}.safetensors"
    return trial_folder(trials_folder, number) / name


def weights_files(trials_folder: Path, number: int) -> list[Path]:
    """All member files of a trial that are there: one, or one a fold."""
    return sorted(trial_folder(trials_folder, number).glob("best*.safetensors"))


def trial_state(trials_folder: Path, number: int) -> Path:
    """A running trial's last state, from which it goes on after an interruption."""
    return trial_folder(trials_folder, number) / "state.pt"


def trial_events(tensorboard_folder: Path, number: int) -> Path:
    """TensorBoard's files of one trial: its scalars and its row of the HParams table."""
    return tensorboard_folder / f"{number:04d}"


def trial_picture_events(tensorboard_folder: Path, number: int) -> Path:
    """TensorBoard's files of one trial's slices, apart: it follows one file a folder."""
    return trial_events(tensorboard_folder, number) / "slices"


def open_experiment(name: str, storage: str, data: str | None = None) -> Experiment:
    """Find an experiment's YAML file, read it, and make its folder.

    Args:
        name: A path to a YAML file or its folder, or a name under `experiments/`, which
            is looked for in the working folder and then beside this package.
        storage: Folder or URI for all results; what is at a URI is fetched.
        data: Replaces `data.path`: a URI, or a path relative to the working folder.

    Raises:
        UserError: When there is no such experiment, a setting is wrong, or the storage
            cannot be written to.
    """
    path = _find_config(name)
    config = load_experiment(path)
    experiment = path.parent.name if path.name == "experiment.yaml" else path.stem
    remote_copy = remote_copy_of(f"{storage.rstrip('/')}/{experiment}") if is_uri(storage) else None
    if remote_copy:
        remote_copy.check(writes=True)
        remote_copy.fetch()
    folder = remote_copy.folder if remote_copy else Path(storage).absolute() / experiment
    cases = fetched(data, "--data") if data and is_uri(data) else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error) from None
    return Experiment(
        name=experiment,
        config=config,
        config_path=path,
        folder=folder,
        data_path=_data_path(config, path, folder, data if cases is None else str(cases)),
        remote_copy=remote_copy,
    )


def _number_of(earlier: Path) -> int:
    """The number at the end of a folder's name, 0 where a user has given it another one."""
    number = earlier.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _find_config(name: str) -> Path:
    given = Path(name)
    candidates = [given, given / "experiment.yaml"]
    candidates += [
        place / "experiments" / name / "experiment.yaml" for place in (Path.cwd(), _CHECKOUT)
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    known = sorted(
        {
            file.parent.name
            for place in (Path.cwd(), _CHECKOUT)
            for file in place.glob("experiments/*/experiment.yaml")
        }
    )
    raise UserError(
        f"--experiment {name}: no such YAML file and no folder of that name under experiments/; "
        f"known are {', '.join(known) or 'none'}"
    )


def _data_path(config: ExperimentConfig, path: Path, folder: Path, data: str | None) -> Path:
    if data is not None:
        if config.data.phantom is not None:
            raise UserError(f"--data: {path} simulates its cases; remove the option")
        return Path(data).absolute()
    if config.data.path is None:
        return folder / "cases"
    return (path.parent / config.data.path).resolve()


def code_version() -> str:
    """The package's version, with the commit where it runs from a git checkout."""
    if not (_CHECKOUT / ".git").exists():
        # Installed: git would tell of whatever repository the environment lies in.
        return strokeseg.__version__
    try:
        described = subprocess.run(
            ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return strokeseg.__version__
    return f"{strokeseg.__version__}+{described.stdout.strip()}"
