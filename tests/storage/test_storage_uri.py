"""Experiments at URIs: every command on a real S3 server, and on a folder named as file://."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pyarrow import fs

import strokeseg.search
from strokeseg.errors import UserError
from strokeseg.storage.files import write_json, write_text
from strokeseg.storage.lease import leased
from strokeseg.storage.remote_copy import RemoteCopy, fetched, remote_copy_of
from strokeseg.storage.uri import Storage

EXPERIMENT = """\
data:
  phantom: {cases: 8, spacing_mm: 6.0, seed: 0}
splits:
  folds: 2
  test_share: 0.2
search:
  space: space.yaml
  trials: 2
  epochs: 8
  slices_per_epoch: 32
  grace_epochs: 8
  confirm_trials: 0
ensemble: {choose: vote}
"""
SPACE = """\
first: [{encoder: resnet18, learning_rate: 3.0e-3}]
parameters:
  encoder: {value: resnet18}
  encoder_depth: {value: 3}
  pretrained: {value: false}
  learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
  batch_size: {value: 16}
"""
BUCKET = "research"
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A real S3 server on loopback, seen from outside."""

    endpoint: str
    files: fs.S3FileSystem

    def names(self, prefix: str) -> set[str]:
        """The objects below a prefix, folders' markers aside."""
        selector = fs.FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True)
        found = self.files.get_file_info(selector)
        start = len(f"{BUCKET}/{prefix}/")
        return {one.path[start:] for one in found if one.type is fs.FileType.File}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start moto's server as a process of its own, with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    names = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        try:
            _wait_for(lambda: _answers(endpoint))
            files = fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True)
            files.create_dir(BUCKET)
            yield Server(endpoint=endpoint, files=files)
        finally:
            process.terminate()
            process.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1).close()
    except OSError:
        return False
    return True


def _post(address: str, data: bytes) -> None:
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(address, data=data, headers=headers, method="POST")
    urllib.request.urlopen(request).close()


def _wait_for(condition, seconds: float = PATIENCE_SECONDS) -> None:
    ending = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ending, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROKESEG_WORK", str(tmp_path / "work"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the smallest experiment, named after its file."""
    (tmp_path / "space.yaml").write_text(SPACE)
    path = tmp_path / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


def _start(*arguments: object) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "strokeseg", *map(str, arguments)],
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(*arguments: object) -> str:
    process = _start(*arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def _forget(tmp_path: Path) -> None:
    """Remove the remote copies for good: a killed driver's trials write on until Ray ends them."""
    work = tmp_path / "work"

    def gone() -> bool:
        shutil.rmtree(work, ignore_errors=True)
        time.sleep(1)
        return not work.exists()

    _wait_for(gone)


def _remote_copy(server: Server, tmp_path: Path, prefix: str) -> RemoteCopy:
    remote_copy = remote_copy_of(f"s3://{BUCKET}/{prefix}")
    remote_copy.folder.mkdir(parents=True, exist_ok=True)
    return remote_copy


def test_a_second_place_sees_what_the_first_published(server: Server, tmp_path: Path) -> None:
    first = RemoteCopy(f"s3://{BUCKET}/pair", tmp_path / "a" / "x")
    second = RemoteCopy(f"s3://{BUCKET}/pair", tmp_path / "b" / "x")
    (first.folder / "deep").mkdir(parents=True)
    (first.folder / "deep" / "one.txt").write_text("1")
    (first.folder / "deep" / ".partial-9-one.txt").write_text("half")
    first.publish()
    second.fetch()
    assert (second.folder / "deep" / "one.txt").read_text() == "1"
    assert server.names("pair") == {"deep/one.txt"}
    assert (second.folder.stat().st_mode & 0o777) == 0o700
    (second.folder / "deep" / "one.txt").write_text("22")
    second.publish()
    first.fetch()
    assert (first.folder / "deep" / "one.txt").read_text() == "22"


def test_a_replaced_folder_leaves_nothing_of_the_old_one(server: Server, tmp_path: Path) -> None:
    remote_copy = _remote_copy(server, tmp_path, "replaced")
    folder = remote_copy.folder / "prepared"
    folder.mkdir()
    for name in ("old.parquet", "both.parquet", "preparation.json"):
        (folder / name).write_text(name)
    remote_copy.publish()
    shutil.rmtree(folder)
    folder.mkdir()
    for name in ("new.parquet", "both.parquet", "preparation.json"):
        (folder / name).write_text(f"newer {name}")
    remote_copy.publish()
    assert server.names("replaced/prepared") == {
        "new.parquet",
        "both.parquet",
        "preparation.json",
    }


def test_what_was_removed_here_does_not_come_back(server: Server, tmp_path: Path) -> None:
    remote_copy = _remote_copy(server, tmp_path, "removed")
    path = remote_copy.folder / "state.pt"
    path.write_text("1")
    remote_copy.publish()
    path.unlink()
    remote_copy.fetch()
    assert not path.exists()
    remote_copy.publish()
    assert server.names("removed") == set()


def test_what_was_not_published_yet_is_kept(server: Server, tmp_path: Path) -> None:
    remote_copy = _remote_copy(server, tmp_path, "unpublished")
    journal = remote_copy.folder / "journal.log"
    journal.write_text("1\n")
    remote_copy.publish()
    with journal.open("a") as file:
        file.write("2\n")
    later = time.time_ns() + 2_000_000_000
    os.utime(journal, ns=(later, later))
    again = remote_copy_of(remote_copy.uri)
    again.fetch()
    assert journal.read_text() == "1\n2\n"


def test_what_grew_while_it_was_published_is_kept(tmp_path: Path) -> None:
    remote_copy = remote_copy_of(f"file://{tmp_path}/grown")
    remote_copy.fetch()
    journal = remote_copy.folder / "journal.log"
    journal.write_text("1\n")
    remote_copy.publish()
    published = journal.stat().st_mtime_ns
    with journal.open("a") as file:
        file.write("2\n")
    # As if the line had come between the upload and the taking over of the storage's time.
    os.utime(journal, ns=(published, published))
    remote_copy_of(remote_copy.uri).fetch()
    assert journal.read_text() == "1\n2\n"


def test_a_working_copy_that_is_gone_empties_no_storage(tmp_path: Path) -> None:
    remote_copy = remote_copy_of(f"file://{tmp_path}/kept")
    remote_copy.fetch()
    (remote_copy.folder / "journal.log").write_text("1\n")
    remote_copy.publish()
    shutil.rmtree(remote_copy.folder)
    with pytest.raises(UserError, match="has gone"):
        remote_copy.publish()
    assert (tmp_path / "kept" / "journal.log").read_text() == "1\n"


class _Search:
    """A driver's journal and trials, one more of them every time that the search goes on.

    Everything is a number of epochs: in a trial's order its weights, its state, the journal.
    """

    def __init__(self, folder: Path, storage: Path) -> None:
        self.folder, self.storage = folder, storage
        self.epochs: dict[str, int] = {}

    def go_on(self) -> None:
        self.epochs = {name: epoch + 1 for name, epoch in self.epochs.items()}
        self.epochs[f"{len(self.epochs):04d}"] = 1
        for name, epoch in self.epochs.items():
            for file in ("best.safetensors", "state.pt"):
                write_text(self.folder / "trials" / name / file, f"{epoch:04d}")
        with (self.folder / "journal.log").open("a") as file:
            file.write(json.dumps(self.epochs) + "\n")
        write_json(self.folder / "study.json", self.epochs)

    def check(self) -> None:
        """Another machine that goes on from the storage lacks nothing that the journal tells."""
        known = {}
        if (self.storage / "study.json").exists():
            known = json.loads((self.storage / "study.json").read_text())
        if (self.storage / "journal.log").exists():
            known |= json.loads((self.storage / "journal.log").read_text().splitlines()[-1])
        for name in self.epochs:
            folder = self.storage / "trials" / name
            state = _epochs(folder / "state.pt")
            assert _epochs(folder / "best.safetensors") >= state >= known.get(name, 0)


def _epochs(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def test_the_storage_never_knows_of_an_epoch_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_copy = remote_copy_of(f"file://{tmp_path}/stored")
    remote_copy.fetch()
    search = _Search(remote_copy.folder, tmp_path / "stored")
    search.go_on()
    read, write = Path.read_bytes, Storage.write

    def reading(path: Path) -> bytes:
        search.go_on()
        return read(path)

    def writing(storage: Storage, key: str, content: bytes) -> None:
        write(storage, key, content)
        search.check()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", reading)
        patch.setattr(Storage, "write", writing)
        remote_copy.publish()
        remote_copy.publish()
    # All that came late comes with the last one.
    remote_copy.publish()
    assert len(search.epochs) > 5
    for name, epoch in search.epochs.items():
        assert _epochs(tmp_path / "stored" / "trials" / name / "state.pt") == epoch
    assert (
        (tmp_path / "stored" / "journal.log").read_text().endswith(json.dumps(search.epochs) + "\n")
    )


def test_what_was_replaced_while_it_was_published_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_copy = remote_copy_of(f"file://{tmp_path}/replacing")
    remote_copy.fetch()
    state = remote_copy.folder / "state.pt"
    write_text(state, "1")
    write = Storage.write

    def writing(storage: Storage, key: str, content: bytes) -> None:
        write_text(state, "2")
        # The storage's time is later than that of what it has not.
        write(storage, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", writing)
        remote_copy.publish()
    # As after a kill: another process knows only the times.
    remote_copy_of(remote_copy.uri).fetch()
    assert state.read_text() == "2"
    remote_copy.publish()
    assert (tmp_path / "replacing" / "state.pt").read_text() == "2"


def test_a_state_leaves_the_storage_only_after_the_end_of_its_trial_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_copy = remote_copy_of(f"file://{tmp_path}/ended")
    remote_copy.fetch()
    state = remote_copy.folder / "trials" / "0000" / "state.pt"
    write_text(state, "1")
    journal = remote_copy.folder / "journal.log"
    journal.write_text("running\n")
    remote_copy.publish()
    with journal.open("a") as file:
        file.write("ended\n")
    state.unlink()
    delete, deleted = Storage.delete, []

    def deleting(storage: Storage, key: str) -> None:
        deleted.append(key)
        assert (tmp_path / "ended" / "journal.log").read_text().endswith("ended\n")
        delete(storage, key)

    monkeypatch.setattr(Storage, "delete", deleting)
    remote_copy.publish()
    assert deleted == ["trials/0000/state.pt"]


def test_a_folder_as_uri_gets_a_remote_copy(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    remote_copy = remote_copy_of(f"file://{mounted}/results")
    remote_copy.check(writes=True)
    remote_copy.fetch()
    (remote_copy.folder / "one.txt").write_text("1")
    remote_copy.publish()
    assert (mounted / "results" / "one.txt").read_text() == "1"
    (mounted / "results" / "two.txt").write_text("2")
    remote_copy.fetch()
    assert (remote_copy.folder / "two.txt").read_text() == "2"


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x", "nonsense://x/y"])
def test_a_storage_that_is_not_there_is_one_line(
    server: Server, config: Path, launch, uri: str
) -> None:
    outcome = launch(
        *(strokeseg.search.main, "--experiment", config, "--storage", uri, "--axis", "axial")
    )
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert uri in outcome.error_lines[0]


def test_an_endpoint_that_does_not_answer_is_one_line_soon(
    server: Server, config: Path, launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        begun = time.monotonic()
        uri = f"s3://{BUCKET}/x"
        outcome = launch(
            *(strokeseg.search.main, "--experiment", config, "--storage", uri, "--axis", "axial")
        )
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert time.monotonic() - begun < 60


def test_refused_credentials_are_one_line(server: Server) -> None:
    switch = f"{server.endpoint}/moto-api/reset-auth"
    _post(switch, b"0")
    try:
        with pytest.raises(UserError, match="credentials"):
            remote_copy_of(f"s3://{BUCKET}/x").check(writes=True)
    finally:
        _post(switch, b"inf")


def test_data_that_are_not_there_are_one_line(server: Server) -> None:
    with pytest.raises(UserError, match="there is nothing"):
        fetched(f"s3://{BUCKET}/nothing", "--data")


def test_another_machine_waits_while_a_lease_is_fresh(server: Server, tmp_path: Path) -> None:
    remote_copy = _remote_copy(server, tmp_path, "leased")
    path = remote_copy.folder / "axial.lease"
    remote_copy.write(path, "elsewhere 0")
    with pytest.raises(UserError, match="on elsewhere"), leased(remote_copy, path):
        pass
    remote_copy.write(path, f"{socket.gethostname()} {os.getuid()}")
    with leased(remote_copy, path):
        assert server.names("leased") >= {"axial.lease"}
    assert "axial.lease" not in server.names("leased")


def test_whoever_slept_while_another_machine_took_the_lease_ends(
    server: Server, tmp_path: Path
) -> None:
    remote_copy = _remote_copy(server, tmp_path, "taken")
    hold = (
        "import sys, time\nfrom strokeseg.storage.lease import leased\n"
        "from strokeseg.storage.remote_copy import remote_copy_of\n"
        "remote_copy = remote_copy_of(sys.argv[1])\n"
        "with leased(remote_copy, remote_copy.folder / 'axial.lease'):\n    time.sleep(100)"
    )
    sleeper = subprocess.Popen(
        [sys.executable, "-c", hold, remote_copy.uri], stderr=subprocess.PIPE, text=True
    )
    path = remote_copy.folder / "axial.lease"
    _wait_for(lambda: remote_copy.read(path) is not None)
    # Past its own second look.
    time.sleep(3)
    remote_copy.write(path, "elsewhere 0")
    _, output = sleeper.communicate(timeout=PATIENCE_SECONDS)
    assert sleeper.returncode == 2
    assert output.startswith(f"error: {remote_copy.uri}: ") and "elsewhere has taken" in output
    # It is the other's, and was not removed.
    found = remote_copy.read(path)
    assert found is not None and found[0] == "elsewhere 0"


@pytest.mark.slow
def test_a_killed_search_goes_on_from_the_bucket_to_the_bundle(
    server: Server, config: Path, tmp_path: Path
) -> None:
    uri = f"s3://{BUCKET}/runs"
    place = ("--experiment", config, "--storage", uri)
    _run("prepare", *place)
    assert "preparation.json" in server.names("runs/tiny/prepared")
    assert not any(".partial" in name for name in server.names("runs/tiny"))

    driver = _start("search", *place, "--axis", "axial")
    wanted = {"trials/0000/state.pt", "journal.log"}
    try:
        # A trial's state is there from its first epoch to its last: stop the trials in between,
        # since these are over sooner than the driver publishes.
        _wait_for(lambda: any((tmp_path / "work").rglob("trials/0000/state.pt")))
        for process in psutil.Process(driver.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith("ray::ImplicitFunc"):
                    process.suspend()
        _wait_for(lambda: wanted <= server.names("runs/tiny/search/axial"))
        assert driver.poll() is None
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()
    before = server.files.open_input_file(f"{BUCKET}/runs/tiny/search/axial/journal.log").read()
    _forget(tmp_path)

    # What the first machine had begun, the second one ends, and does all the rest.
    _run("run", *place, "--device", "cpu")
    journal = server.files.open_input_file(f"{BUCKET}/runs/tiny/search/axial/journal.log").read()
    whole = before[: before.rfind(b"\n") + 1]
    assert whole and journal.startswith(whole), "the search began from scratch"
    assert {"bundle.zip", "report/index.html", "evaluation/summary.json"} <= server.names(
        "runs/tiny"
    )
    _forget(tmp_path)
    _run(
        *("predict", "--bundle", f"{uri}/tiny/bundle.zip", "--input", f"{uri}/tiny/cases"),
        *("--output", f"s3://{BUCKET}/masks", "--device", "cpu"),
    )
    assert json.loads(
        server.files.open_input_file(f"{BUCKET}/masks/dataset_description.json").read()
    )
    assert any(name.endswith("_mask.nii.gz") for name in server.names("masks"))
