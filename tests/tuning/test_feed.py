"""Slices reach the trials in every way, in a real Ray whose CPUs the trials hold all of."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

import strokeseg.prepare
import strokeseg.search
from strokeseg.errors import UserError
from strokeseg.process.temporary_folder import temporary_folder
from strokeseg.training.stores import MappedSlices, UnpackedSlices
from strokeseg.tuning import feed as feed_module
from strokeseg.tuning import unpacking
from strokeseg.tuning.feed import Feed, open_feed
from strokeseg.tuning.trial_slices import slices_of
from strokeseg.tuning.unpacking import Disk

EXPERIMENT = """\
data: {phantom: {cases: 6, spacing_mm: 6.0, seed: 0}}
splits: {folds: 2, test_share: 0}
search: {space: space.yaml, trials: 2, epochs: 2, slices_per_epoch: 32, confirm_trials: 0}
"""
SPACE = """\
first:
  - {encoder: resnet18, learning_rate: 3.0e-3}
  - {encoder: resnet18, learning_rate: 1.0e-3}
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
"""
# In a Ray of its own: opens the feed while shared memory is full, and again when it is not, and
# fills it then; or fills the disk as well; and prints what a worker finds each time.
READ = """
import hashlib, os, sys
from pathlib import Path
import numpy as np
import ray
from strokeseg.errors import StorageError
from strokeseg.compute.session import ray_session
from strokeseg.tuning.feed import open_feed
from strokeseg.tuning.trial_slices import slices_of

def fill(folder, left=0):
    with open(f"{folder}/full", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            file.truncate(file.tell() - left)

@ray.remote
def look(feed, fills=False):
    if fills:
        # Ray writes there, too.
        fill(os.environ["TMPDIR"], 1 << 18)
    try:
        slices = slices_of(feed)
    except StorageError as error:
        return str(error)
    images, masks = slices.gather(np.arange(len(slices)), "cpu")
    sums = [hashlib.sha256(part.numpy()).hexdigest() for part in (images, masks)]
    return " ".join([type(slices.store).__name__, *sums])

def opened():
    return open_feed(Path(sys.argv[2]), "axial", (), gpus=0)

with ray_session():
    if sys.argv[1] != "small":
        fill("/dev/shm")
        feed = opened()
        assert not feed.blocks
        print(ray.get(look.remote(feed, sys.argv[1] == "full disk")))
    if sys.argv[1] == "full":
        os.remove("/dev/shm/full")
        feed = opened()
        fill("/dev/shm")
        print(ray.get(look.remote(feed)))
    elif sys.argv[1] == "small":
        print(ray.get(look.remote(opened())))
"""
# In a cluster of its own: loses the only node with CPUs, where the slices were read.
LOSE = """
import hashlib, sys
from pathlib import Path
import numpy as np
import ray
from ray.cluster_utils import Cluster
from strokeseg.tuning import trial_slices
from strokeseg.tuning.feed import open_feed

trial_slices._BLOCK_SECONDS = 5
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False},
)
node = cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
ray.init(cluster.address, log_to_driver=False)
feed = open_feed(Path(sys.argv[1]), "axial", (), gpus=0)
assert feed.blocks
cluster.remove_node(node, allow_graceful=False)
slices = trial_slices.slices_of(feed)
images, masks = slices.gather(np.arange(len(slices)), "cpu")
sums = [hashlib.sha256(part.numpy()).hexdigest() for part in (images, masks)]
print(type(slices.store).__name__, *sums)
ray.shutdown()
cluster.shutdown()
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A small experiment; `storage` is where its runs lie."""

    config: Path
    storage: Path

    @property
    def options(self) -> tuple[object, ...]:
        return ("--axis", "axial", "--experiment", self.config, "--storage", self.storage)

    @property
    def slices(self) -> Path:
        return self.storage / "tiny" / "prepared" / "slices"

    def scores(self) -> list[float]:
        return [float(row["dice"]) for row in self.board()]

    def board(self) -> list[dict[str, str]]:
        path = self.storage / "tiny" / "search" / "axial" / "leaderboard.csv"
        with path.open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, launch: Callable[..., Any], local_ray: None
) -> Place:
    folder = tmp_path_factory.mktemp("feed")
    config = folder / "experiments" / "tiny"
    config.mkdir(parents=True)
    (config / "experiment.yaml").write_text(EXPERIMENT)
    (config / "space.yaml").write_text(SPACE)
    place = Place(config=config, storage=folder / "runs")
    outcome = launch(strokeseg.prepare.main, *place.options[2:])
    assert outcome.code == 0, outcome.err
    return place


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Place:
    """A copy to spoil."""
    shutil.copytree(prepared.storage, tmp_path / "runs")
    return Place(config=prepared.config, storage=tmp_path / "runs")


def too_small(monkeypatch: pytest.MonkeyPatch, disk: Disk | None = None) -> None:
    """Call every object store too small, and every disk large enough, or as given."""
    disk = disk or Disk(folder="large", free_bytes=10**18, on_disk=True)
    monkeypatch.setattr(feed_module, "_STORE_SHARE", 0.0)
    monkeypatch.setattr(feed_module, "disk_here", lambda: disk)


def opened(place: Place, cases: tuple[str, ...] = ()) -> Feed:
    return open_feed(place.slices, "axial", cases, gpus=0)


def test_mapped_and_unpacked_slices_are_the_same(
    prepared: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "strokeseg")
    mapped = slices_of(opened(prepared))
    too_small(monkeypatch)
    unpacked = slices_of(opened(prepared))
    assert isinstance(mapped.store, MappedSlices)
    assert isinstance(unpacked.store, UnpackedSlices)
    # A block a case, and not one a slice.
    assert len(mapped.store.images) <= 6
    assert mapped.lesion_voxels.sum() > 0
    rows = np.random.default_rng(0).permutation(len(mapped))
    expected = mapped.gather(rows, "cpu")
    assert unpacked.cases.tolist() == mapped.cases.tolist()
    for one, other in zip(expected, unpacked.gather(rows, "cpu"), strict=True):
        assert torch.equal(one, other)
    images, masks = mapped.gather(np.arange(len(mapped)), "cpu")
    assert masks.sum(dim=(1, 2, 3)).tolist() == mapped.lesion_voxels.tolist()
    assert (images != 0).any(dim=3).any(dim=2).any(dim=1).tolist() == mapped.holds_brain.tolist()
    output = [record.getMessage() for record in caplog.records if "feed:" in record.getMessage()]
    assert len(output) == 2
    assert "mapped from shared memory" in output[0] and "unpacked on each node's disk" in output[1]


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        # 6 cases of 6 mm take some MB; a disk of 1 MB lacks twice that, less its own.
        (Disk(folder="node a: /tmp/ray", free_bytes=10**6, on_disk=True), "GB more there"),
        (Disk(folder="node a: /tmp/ray", free_bytes=10**18, on_disk=False), "RAY_TMPDIR"),
    ],
    ids=["full", "in memory"],
)
def test_slices_that_neither_memory_nor_disk_holds_are_refused_in_one_line(
    place: Place,
    launch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    disk: Disk,
    words: str,
) -> None:
    too_small(monkeypatch, disk)
    outcome = launch(strokeseg.search.main, *place.options)
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert "axis=axial" in line and "GB of slices fit neither" in line
    assert "node a: /tmp/ray" in line and words in line


def test_a_disk_says_what_must_be_free() -> None:
    # Half of a disk's room is left to others: 3 GB need 6, of which 4 are there.
    fault = Disk(folder="node a: /r", free_bytes=4 * 10**9, on_disk=True).fault(3e9)
    assert fault is not None
    assert (
        "must have 6.00 GB free" in fault and "has 4.00;" in fault and "free 2.00 GB more" in fault
    )
    assert Disk(folder="node a: /r", free_bytes=6 * 10**9, on_disk=True).fault(3e9) is None


def test_slices_that_went_with_their_node_are_unpacked_on_another(prepared: Place) -> None:
    with temporary_folder(Path("/tmp"), "ssl-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", LOSE, str(prepared.slices)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={
                **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
                "RAY_TMPDIR": str(folder),
                "RAY_AUTH_MODE": "disabled",
            },
        )
    assert done.returncode == 0, done.stderr
    assert "the slices in shared memory are lost" in done.stderr
    # Ray's own words about the node may come before or after it.
    assert " ".join(["UnpackedSlices", *_sums(prepared)]) in done.stdout.splitlines()


def test_all_trials_of_a_node_read_one_unpacked_file_which_goes_with_them(
    prepared: Place, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_small(monkeypatch)
    feed = opened(prepared)

    class Trial:
        def begin_again(self) -> None:
            slices_of.cache_clear()

        def file(self) -> tuple[int, int]:
            file = os.stat(slices_of(feed).store._file.fileno())  # type: ignore[attr-defined]
            return file.st_ino, file.st_nlink

    trials = [ray.remote(Trial).options(num_cpus=1).remote() for _ in range(2)]
    (lost, names), other = ray.get([trial.file.remote() for trial in trials])
    assert other == (lost, names)
    assert names == 0
    assert lost in inodes_in_use()
    # One whose process is killed is unpacked again, and the first trial reads on meanwhile.
    node = ray.get_runtime_context().get_node_id()
    ray.kill(ray.get_actor(f"{feed.facts.hex()}-{node}"))
    ray.get(trials[1].begin_again.remote())
    (one, _), (before, _) = ray.get([trial.file.remote() for trial in reversed(trials)])
    assert before == lost != one
    assert one in inodes_in_use()
    for trial in trials:
        ray.kill(trial)
    deadline = time.monotonic() + 60
    while one in inodes_in_use():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def inodes_in_use() -> set[int]:
    """Of the files without a name that processes of this machine hold open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if "(deleted)" in str(link.readlink()):
                found.add(link.stat().st_ino)
    return found


def test_a_file_that_goes_while_trials_read_it_fails_them_with_its_name(
    place: Place, launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_small(monkeypatch)
    gone = sorted((place.slices / "axis=axial").glob("fold=1/*.parquet"))[0]
    whole = open_feed

    def open_and_lose(*arguments: Any, **more: Any) -> Feed:
        feed = whole(*arguments, **more)
        gone.unlink()
        return feed

    monkeypatch.setattr("strokeseg.tuning.feed.open_feed", open_and_lose)
    outcome = launch(strokeseg.search.main, *place.options)
    assert outcome.code == 2
    line = outcome.err.strip().splitlines()[-1]
    assert str(gone) in line and "run prepare again" in line
    assert [row["state"] for row in place.board()] == ["FAIL", "FAIL"]


def test_a_disk_that_fills_halts_a_search_which_scores_as_from_memory_once_there_is_room(
    prepared: Place,
    place: Place,
    tmp_path: Path,
    launch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = open_feed
    with monkeypatch.context() as patched:
        too_small(patched)
        # No disk has room for so many.
        patched.setattr(
            "strokeseg.tuning.feed.open_feed",
            lambda *given, **more: replace(whole(*given, **more), counts=(10**12,) * 6),
        )
        outcome = launch(strokeseg.search.main, *place.options)
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert "GB of unpacked slices" in line and "the same command goes on from there" in line
    assert not any(row["state"] == "FAIL" for row in place.board())
    # Two trials at once hold both of Ray's CPUs all the time: had a trial to wait for Ray to read,
    # it would wait for ever.
    with monkeypatch.context() as patched:
        too_small(patched)
        outcome = launch(strokeseg.search.main, *place.options)
    assert outcome.code == 0, outcome.err
    storage = Path(shutil.copytree(prepared.storage, tmp_path / "mapped"))
    mapped = Place(config=prepared.config, storage=storage)
    outcome = launch(strokeseg.search.main, *mapped.options)
    assert outcome.code == 0, outcome.err
    assert len(place.scores()) == 2
    assert place.scores() == mapped.scores()


def test_slices_come_whatever_is_left_of_shared_memory_or_a_line_says_what_to_free(
    prepared: Place,
) -> None:
    # Shared memory of its own, and temporary files on a disk that is small for `full disk`.
    memory, place = "mount -t tmpfs -o size=300m tmpfs /dev/shm", Path("/mnt")
    (refused,) = _read(prepared, f"{memory} && {small_disk(place)}", place, "full disk")
    assert re.fullmatch(r"node .*: /mnt/.* cannot hold .* GB of .* there", refused)
    if unpacking.file_system(Path("/tmp")) == "tmpfs":
        pytest.skip("the rest needs temporary files on a disk")
    with temporary_folder(Path("/tmp"), "sst-") as folder:
        unpacked, mapped = _read(prepared, memory, folder, "full")
    sums = _sums(prepared)
    assert unpacked == " ".join(["UnpackedSlices", *sums])
    assert mapped == " ".join(["MappedSlices", *sums])


def test_rays_store_lies_on_the_disk_where_shared_memory_is_too_small(prepared: Place) -> None:
    with temporary_folder(Path("/tmp"), "sst-") as folder:
        (mapped,) = _read(prepared, "mount -t tmpfs -o size=1m tmpfs /dev/shm", folder, "small")
    assert mapped == " ".join(["MappedSlices", *_sums(prepared)])


def _read(prepared: Place, mounted: str, temporary: Path, memory: str) -> list[str]:
    """Return the lines that `READ` prints in a mount namespace of its own."""
    command = ["unshare", "--mount", "bash", "-c", f'{mounted} && exec "$@"', "bash"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this needs a mount namespace of its own")
    done = subprocess.run(
        [*command, sys.executable, "-c", READ, memory, str(prepared.slices)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "TMPDIR": str(temporary),
            "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "200000000",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _sums(prepared: Place) -> list[str]:
    """What `READ` prints of all images and masks of the axial slices."""
    slices = slices_of(opened(prepared))
    whole = slices.gather(np.arange(len(slices)), "cpu")
    return [hashlib.sha256(part.numpy()).hexdigest() for part in whole]


def small_disk(place: Path) -> str:
    """What a shell says to mount one there; in memory, but it does not look so to us."""
    upper = f"{place}/upper,workdir={place}/work"
    return (
        f"mount -t tmpfs -o size=64m tmpfs {place} && mkdir {place}/upper {place}/work {place}/low "
        f"&& mount -t overlay -o lowerdir={place}/low,upperdir={upper} overlay {place}"
    )


@pytest.mark.parametrize("fault", ["missing", "cut", "garbled"])
def test_damaged_slices_are_named_before_the_first_trial(
    place: Place, launch: Callable[..., Any], fault: str
) -> None:
    file = sorted((place.slices / "axis=axial").glob("fold=0/*.parquet"))[0]
    content = file.read_bytes()
    if fault == "missing":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    outcome = launch(strokeseg.search.main, *place.options)
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert (file.stem if fault == "missing" else str(file)) in line
    assert "run prepare again" in line


def test_a_gpu_that_torch_cannot_use_is_refused(local_ray: None, launch: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch finds a GPU here")
    with pytest.raises(UserError, match="torch finds none there"):
        # Ray hands out no GPU here, so ask without one.
        feed_module.gpu_bytes(0)


def test_a_trial_that_asks_for_more_than_there_is_is_refused_in_one_line(
    prepared: Place, launch: Callable[..., Any]
) -> None:
    outcome = launch(strokeseg.search.main, *prepared.options, "--gpus-per-trial", 1)
    assert outcome.code == 2
    assert "has 0 GPUs and 2 CPUs, none fits" in outcome.err.splitlines()[-1]
