"""What a cluster without a network needs: gathered for any target, and enough without a network.

Packages are small real wheels on a real index on loopback, fetched by the real uv and pip; the hub
is a server on loopback that the hub's own client is pointed to.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save

from strokeseg import prefetch
from strokeseg.errors import UserError
from strokeseg.learning.weights import find_encoder_weights
from strokeseg.wheels import Target, build_wheel, fetch_wheels, own_target, resolve

CHECKOUT = Path(__file__).parents[1]
LITE0 = "tu-tf_efficientnet_lite0"
X86, ARM = Target(python="3.11", machine="x86_64"), Target(python="3.12", machine="aarch64")


def silent(done: int, total: int, note: str) -> None:
    """Show nothing."""


def write_wheel(folder: Path, file_name: str, *requires: str) -> Path:
    """Write a wheel that holds nothing but its metadata."""
    name, version = file_name.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    extras = sorted({line.split('"')[1] for line in requires if "extra ==" in line})
    lines = [
        *("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"),
        *(f"Provides-Extra: {extra}" for extra in extras),
        *(f"Requires-Dist: {line}" for line in requires),
    ]
    tags = file_name.removesuffix(".whl").split("-", 2)[2]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


class Site:
    """Files by path, served on loopback, and the paths that were asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.stalled: set[str] = set()
        self.released = threading.Event()
        self.address = ""

    @contextmanager
    def serving(self) -> Iterator[Site]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET(body=False)

            def do_GET(self, *, body: bool = True) -> None:
                if body:
                    site.asked.append(self.path)
                content = site.files.get(self.path)
                self.send_response(404 if content is None else 200)
                content = content or b""
                self.send_header("Content-Length", str(len(content)))
                kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
                self.send_header("Content-Type", kind)
                # What the hub's client asks of every file.
                self.send_header("ETag", '"0123456789abcdef"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.end_headers()
                if body:
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    if self.path in site.stalled:
                        site.released.wait()
                    self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()


def index_of(wheels: Sequence[Path]) -> dict[str, bytes]:
    """The pages and files of a package index, which gives metadata apart, as large ones do."""
    files: dict[str, bytes] = {}
    pages: dict[str, str] = {}
    for path in wheels:
        content = path.read_bytes()
        name, version = path.name.split("-")[:2]
        with zipfile.ZipFile(path) as wheel:
            metadata = wheel.read(f"{name}-{version}.dist-info/METADATA")
        files |= {f"/files/{path.name}": content, f"/files/{path.name}.metadata": metadata}
        link = f"/files/{path.name}#sha256={hashlib.sha256(content).hexdigest()}"
        apart = f'data-core-metadata="sha256={hashlib.sha256(metadata).hexdigest()}"'
        page = f"/simple/{name}/"
        pages[page] = f'{pages.get(page, "")}<a href="{link}" {apart}>{path.name}</a>\n'
    bodies = {
        page: f"<!DOCTYPE html><html><body>{links}</body></html>" for page, links in pages.items()
    }
    return {**files, **{page: body.encode() for page, body in bodies.items()}}


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let uv and pip know of no place but this index, and keep nothing of what they fetch."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)


def wheels_asked_for(site: Site) -> list[str]:
    return sorted(path.removeprefix("/files/") for path in site.asked if path.endswith(".whl"))


def wheels_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.whl")}


@pytest.fixture
def packages(tmp_path: Path) -> list[Path]:
    """Packages with conditions, extras, and wheels for one machine or one Python only."""
    shelf = tmp_path / "shelf"
    return [
        write_wheel(shelf, "alpha-1.0-py3-none-any.whl"),
        write_wheel(shelf, "alpha-2.0-py3-none-any.whl"),
        write_wheel(shelf, "alpha-3.0-py3-none-any.whl"),
        write_wheel(shelf, "beta-1.0-py3-none-any.whl", "alpha"),
        write_wheel(shelf, "gamma-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"),
        write_wheel(shelf, "gamma-1.0-cp311-cp311-manylinux_2_35_x86_64.whl"),
        write_wheel(shelf, "gamma-1.0-cp312-abi3-manylinux2014_aarch64.whl"),
        write_wheel(
            shelf,
            "delta-1.0-py3-none-any.whl",
            'epsilon; extra == "fast"',
            'zeta; extra == "slow"',
        ),
        write_wheel(shelf, "epsilon-1.0-py3-none-any.whl", "delta[fast]"),
    ]


@pytest.fixture
def own_wheel(tmp_path: Path) -> Path:
    """A wheel that stands for strokeseg's own."""
    return write_wheel(
        tmp_path / "own",
        "strokeseg-0.1.0-py3-none-any.whl",
        "alpha",
        'beta; python_version < "3.12"',
        'gamma; sys_platform == "linux"',
        'windows-only; sys_platform == "win32"',
        'delta[fast]; extra == "search"',
        'strokeseg[search]; extra == "cluster"',
        'never; extra == "dev"',
    )


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text(
        "alpha==1.0 ; python_full_version < '3.12'\nalpha==2.0 ; python_full_version >= '3.12'\n"
        "beta==1.0\ndelta==1.0\nepsilon==1.0\ngamma==1.0\nzeta==1.0\n"
    )
    return path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            X86,
            {
                *("alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"),
                "gamma-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            },
        ),
        (ARM, {"alpha-2.0-py3-none-any.whl", "gamma-1.0-cp312-abi3-manylinux2014_aarch64.whl"}),
    ],
)
def test_conditions_pins_and_wheels_are_those_of_the_target(
    packages, own_wheel, pins, tmp_path, monkeypatch, target, expected
):
    folder = tmp_path / "wheels"
    with Site(index_of(packages)).serving() as site:
        use_index(monkeypatch, f"{site.address}/simple")
        requirements = resolve(own_wheel, ["cluster"], pins, target)
        fetch_wheels(requirements, folder, target, silent)
    # `cluster` brings `search`, which brings delta, whose extra brings epsilon.
    expected = {*expected, "delta-1.0-py3-none-any.whl", "epsilon-1.0-py3-none-any.whl"}
    assert {path.name for path in folder.glob("*.whl")} == expected
    first, *others = requirements.splitlines()
    assert first.startswith("strokeseg[cluster]==0.1.0 --hash=sha256:")
    assert {line.split("==")[0] for line in others} == {name.split("-")[0] for name in expected}
    assert all("--hash=sha256:" in line for line in others)


@pytest.mark.parametrize("version", ["2", "1.0"])
def test_a_package_that_the_index_lacks_is_named_in_a_line(
    packages, own_wheel, pins, tmp_path, monkeypatch, version
):
    # Of version 1.0 there is no wheel for Python 3.13.
    target = Target(python="3.13" if version == "1.0" else "3.11", machine="x86_64")
    pins.write_text(pins.read_text().replace("gamma==1.0", f"gamma=={version}"))
    with Site(index_of(packages)).serving() as site:
        use_index(monkeypatch, f"{site.address}/simple")
        with pytest.raises(UserError, match="cannot work them out") as caught:
            resolve(own_wheel, [], pins, target)
    assert "gamma" in str(caught.value) and f"=={version}" in str(caught.value)
    assert "PIP_INDEX_URL" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_index_is_named_in_a_line(own_wheel, pins, monkeypatch):
    with Site({}).serving() as site:
        address = site.address
    use_index(monkeypatch, f"{address}/simple")
    with pytest.raises(UserError, match="cannot work them out") as caught:
        resolve(own_wheel, [], pins, ARM)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wheel_that_came_damaged_is_refused_and_named(
    packages, own_wheel, pins, tmp_path, monkeypatch
):
    folder = tmp_path / "wheels"
    with Site(index_of(packages)).serving() as site:
        use_index(monkeypatch, f"{site.address}/simple")
        requirements = resolve(own_wheel, [], pins, X86)
        site.files["/files/beta-1.0-py3-none-any.whl"] = b"damaged"
        with pytest.raises(UserError, match=r"^beta==1\.0: pip cannot fetch it") as caught:
            fetch_wheels(requirements, folder, X86, silent)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("beta*"))


def test_a_full_disk_is_said_in_a_line(packages, own_wheel, pins, tmp_path, monkeypatch):
    with Site(index_of(packages)).serving() as site:
        use_index(monkeypatch, f"{site.address}/simple")
        requirements = resolve(own_wheel, [], pins, X86)
        with files_of_at_most(100), pytest.raises(UserError, match="File too large") as caught:
            fetch_wheels(requirements, tmp_path / "wheels", X86, silent)
    assert "\n" not in str(caught.value)


@contextmanager
def files_of_at_most(limit: int) -> Iterator[None]:
    """What a write fails by here is a file too large, and there a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


KILLED = """
import sys
from pathlib import Path
from strokeseg.wheels import Target, fetch_wheels
target = Target(python="3.11", machine="x86_64")
fetch_wheels(sys.argv[1], Path(sys.argv[2]), target, lambda *_: None)
"""


def test_after_a_kill_in_mid_file_only_what_is_missing_or_damaged_is_fetched(
    packages, own_wheel, pins, tmp_path, monkeypatch
):
    folder = tmp_path / "wheels"
    alpha, beta, gamma = (
        *("alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"),
        "gamma-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    )
    whole = {path.name: path.read_bytes() for path in packages}
    with Site(index_of(packages)).serving() as site:
        use_index(monkeypatch, f"{site.address}/simple")
        requirements = resolve(own_wheel, [], pins, X86)
        site.stalled.add(f"/files/{beta}")
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, requirements, folder],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while wheels_in(folder) != {alpha: whole[alpha], gamma: whole[gamma]} or (
            beta not in wheels_asked_for(site)
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        site.released.set()
        assert not (folder / beta).exists()
        (folder / gamma).write_bytes(whole[gamma][:-1])
        site.asked.clear()
        fetch_wheels(requirements, folder, X86, silent)
        assert wheels_asked_for(site) == [beta, gamma]
    assert wheels_in(folder) == {name: whole[name] for name in (alpha, beta, gamma)}


def test_the_wheel_of_strokeseg_holds_the_checkouts_code_and_nothing_older(tmp_path, monkeypatch):
    # With this environment's own setuptools, since a test asks no index for another.
    monkeypatch.setenv("UV_NO_BUILD_ISOLATION", "1")
    checkout = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "strokeseg", checkout / "strokeseg")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, checkout)
    stale = checkout / "build" / "lib" / "strokeseg" / "removed.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    with zipfile.ZipFile(build_wheel(checkout, tmp_path / "wheels")) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("strokeseg/")}
    assert names == {
        path.relative_to(CHECKOUT).as_posix()
        for pattern in ("*.py", "py.typed")
        for path in (CHECKOUT / "strokeseg").rglob(pattern)
    }
    with pytest.raises(UserError, match="must be a checkout of strokeseg"):
        build_wheel(tmp_path, tmp_path / "third")


def write_space(folder: Path, encoder: str) -> Path:
    path = folder / f"{encoder}.yaml"
    path.write_text(
        f"parameters:\n  encoder: {{value: {encoder}}}\n  encoder_depth: {{value: 3}}\n"
        "  pretrained: {value: true}\n"
    )
    return path


def test_what_is_missing_of_the_weights_is_named_and_the_rest_is_kept(launch, tmp_path):
    folder = tmp_path / "offline"
    spaces = [write_space(tmp_path, name) for name in ("resnet81", "resnet18", LITE0)]
    options = [word for space in spaces for word in ("--space", space)]
    done = launch(prefetch.main, folder, "--only", "weights", *options)
    assert done.code == 1
    *failed, last = [line for line in done.err.splitlines() if not line.startswith("Gathering")]
    assert len(failed) == 2
    assert "'resnet81'" in failed[0] and "did you mean" in failed[0]
    assert "encoder resnet18: not found" in failed[1] and "--weights-dir" in failed[1]
    assert "not complete" in last
    assert not (folder / "README.txt").exists()
    assert [path.name for path in (folder / "weights").iterdir()] == [f"{LITE0}.safetensors"]
    kept, given = find_encoder_weights(LITE0, folder / "weights"), find_encoder_weights(LITE0, None)
    assert kept.source == f"{LITE0}.safetensors"
    assert kept.tensors.keys() == given.tensors.keys()
    assert all(torch.equal(kept.tensors[key], given.tensors[key]) for key in given.tensors)


def test_a_whole_folder_says_what_to_do_and_holds_what_it_sums_up(launch, tmp_path):
    folder = tmp_path / "offline"
    space = write_space(tmp_path, LITE0)
    done = launch(prefetch.main, folder, "--only", "weights", "--space", space)
    assert done.code == 0
    assert done.out == (folder / "README.txt").read_text()
    commands = [line.strip() for line in done.out.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert commands[1].endswith("--weights-dir weights")
    sums = (folder / "SHA256SUMS").read_text()
    assert "cluster/slurm.sh" in done.out and "cluster/slurm.sh" in sums
    check = subprocess.run(commands[0], shell=True, cwd=folder, check=False)
    assert check.returncode == 0
    weights = folder / "weights" / f"{LITE0}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    check = subprocess.run(commands[0], shell=True, cwd=folder, capture_output=True, check=False)
    assert check.returncode != 0
    # A file that was damaged on the way is named, not taken for weights.
    done = launch(prefetch.main, folder, "--only", "weights", "--space", space)
    assert done.code == 1
    assert f"{weights}: must hold plain tensors" in done.err


@pytest.mark.parametrize("options", [["--python", "3.9"], ["--machine", "ppc64le"]])
def test_another_python_or_machine_is_refused_with_those_that_can_be_had(launch, tmp_path, options):
    done = launch(prefetch.main, tmp_path / "offline", *options)
    assert done.code == 2
    (line,) = done.error_lines
    assert options[1] in line and ("3.13" in line or "aarch64" in line)
    assert not (tmp_path / "offline").exists()


def test_a_place_that_takes_no_files_is_refused_in_a_line(launch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = launch(prefetch.main, blocked / "offline", "--only", "weights")
    assert (done.code, len(done.error_lines)) == (2, 1)
    space = write_space(tmp_path, LITE0)
    folder = tmp_path / "offline"
    with files_of_at_most(100_000):
        done = launch(prefetch.main, folder, "--only", "weights", "--space", space)
    assert done.code == 1
    assert f"{folder / 'weights' / LITE0}.safetensors: cannot be written" in done.err
    assert not list((folder / "weights").iterdir())


@pytest.fixture(scope="module")
def without_network() -> list[str]:
    """What makes of a shell command one that has no network but its own loopback."""
    alone = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    whole = [*alone, "sh", "-c", 'ip link set lo up && exec "$@"', "alone"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare and ip are not installed")
    if subprocess.run([*whole, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine permits no network namespaces")
    return whole


@pytest.mark.slow
def test_a_search_without_a_network_starts_from_weights_that_a_hub_gave(tmp_path, without_network):
    # The hub's file of resnet18, with random numbers in place of ImageNet's.
    known = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    tensors = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    path = f"/{known['repo_id']}/resolve/{known['revision']}/model.safetensors"
    folder, space = tmp_path / "offline", write_space(tmp_path, "resnet18")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HOME": str(tmp_path / "cache")}
    environment.pop("HF_HUB_OFFLINE")
    gather = [sys.executable, "-m", "strokeseg.prefetch", folder, "--only", "weights"]
    with Site({path: save(tensors)}).serving() as hub:
        done = subprocess.run(
            [*gather, "--space", space],
            env={**environment, "HF_ENDPOINT": hub.address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert path in hub.asked
    shutil.rmtree(tmp_path / "cache")
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(
        "data: {phantom: {cases: 6, spacing_mm: 6.0}}\n"
        "splits: {folds: 2, test_share: 0.2}\n"
        f"search: {{space: {space}, trials: 1, epochs: 1, slices_per_epoch: 32, "
        "confirm_trials: 0}\n"
    )
    search = [
        *(*without_network, sys.executable, "-m", "strokeseg.search", "--axis", "axial"),
        *("--experiment", experiment, "--storage", tmp_path / "runs"),
    ]
    environment["RAY_AUTH_MODE"] = "disabled"
    ended = [
        subprocess.run(
            [*search, *more], env=environment, capture_output=True, text=True, check=False
        )
        for more in ([], ["--weights-dir", folder / "weights"])
    ]
    assert ended[0].returncode == 2 and "encoder resnet18: not found" in ended[0].stderr
    assert ended[1].returncode == 0, ended[1].stderr


def index_answers(folder: Path) -> bool:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=0", "--quiet"]
    packaging = subprocess.run([*command, "--dest", folder, "packaging"], check=False)
    return packaging.returncode == 0


@pytest.mark.slow
def test_what_was_gathered_installs_and_segments_without_a_network(
    launch, tmp_path, monkeypatch, without_network, write_untrained_bundle, phantom_cases
):
    if not index_answers(tmp_path / "probe"):
        pytest.skip("no package index answers")
    # Of the whole, 3 GB, these are the parts that do without PyTorch.
    monkeypatch.setattr(prefetch, "EXTRAS", ("predict",))
    folder = tmp_path / "offline"
    done = launch(prefetch.main, folder, "--only", "wheels", "--python", own_target().python)
    assert done.code == 0, done.err
    install = next(line for line in done.out.splitlines() if "pip install" in line)
    shell = [*without_network, "sh", "-c"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHONPATH"))
    }
    # Their own interpreter stands for whatever the name in the instructions means here.
    install = install.replace(f"python{own_target().python} -m", f"{sys.executable} -m")
    subprocess.run(
        [*shell, install],
        cwd=folder,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        check=True,
    )
    (tmp_path / "bundle").mkdir()
    bundle = write_untrained_bundle(tmp_path / "bundle")
    arguments = f"--bundle {bundle} --input {phantom_cases} --output {tmp_path / 'masks'}"
    segmented = subprocess.run(
        [*shell, f".venv/bin/strokeseg predict {arguments}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert segmented.returncode == 0, segmented.stderr
    assert len(list((tmp_path / "masks").rglob("*_mask.nii.gz"))) == 6
