"""What cluster/prefetch.sh gathers is enough for a machine without a network.

The wheels come from the package index of this machine, weights from a hub on loopback that the
hub's own client is pointed to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
from safetensors.torch import save

CHECKOUT = Path(__file__).parents[2]
ENCODERS = ("resnet18", "tu-tf_efficientnet_lite0")
SPACE = """\
parameters:
  encoder: {{value: {}}}
  encoder_depth: {{value: 3}}
  pretrained: {{value: true}}
"""


@contextmanager
def hub_of(path: str, content: bytes) -> Iterator[str]:
    """Serve one file as the hub does, and give the hub's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def without_network() -> list[str]:
    """What makes of a shell command one that has no network but its own loopback."""
    alone = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    whole = [*alone, "sh", "-c", 'ip link set lo up && exec sh -c "$1"', "alone"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare and ip are not installed")
    if subprocess.run([*whole, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine permits no network namespaces")
    return whole


def index_answers(folder: Path) -> bool:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=0", "--quiet"]
    packaging = subprocess.run([*command, "--dest", folder, "packaging"], check=False)
    return packaging.returncode == 0


def gather(folder: Path, temporary: Path) -> str:
    """Run the script with what predict needs and two encoders, and return what it printed."""
    # The hub's file of resnet18, with random numbers in place of ImageNet's.
    known = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    tensors = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    path = f"/{known['repo_id']}/resolve/{known['revision']}/model.safetensors"
    spaces = [temporary / f"{encoder}.yaml" for encoder in ENCODERS]
    for space in spaces:
        space.write_text(SPACE.format(space.stem))
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with hub_of(path, save(tensors)) as address:
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            # Of the whole, 3 GB, these are the parts that do without PyTorch.
            "EXTRAS": "predict",
            "HF_ENDPOINT": address,
            "HF_HOME": str(temporary / "cache"),
        }
        done = subprocess.run(
            [CHECKOUT / "cluster" / "prefetch.sh", folder, *spaces],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_was_gathered_installs_and_segments_without_a_network(
    tmp_path: Path, write_untrained_bundle: Callable[..., Path], phantom_cases: Path
) -> None:
    shell = without_network()
    if not index_answers(tmp_path / "probe"):
        pytest.skip("no package index answers")
    folder = tmp_path / "offline"
    output = gather(folder, tmp_path)
    assert output == (folder / "README.txt").read_text()
    weights = sorted((folder / "weights").glob("*"))
    assert [path.name for path in weights] == [f"{encoder}.safetensors" for encoder in ENCODERS]
    install, run = (line.strip() for line in output.splitlines() if line.startswith("    "))
    assert "sha256sum --check" in install and "--require-hashes" in install
    assert run.startswith(".venv/bin/strokeseg run") and run.endswith("--weights-dir weights")

    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "PYTHONPATH"))
    }
    environment["PIP_CONFIG_FILE"] = os.devnull
    # This interpreter stands for whatever the name in the instructions means here.
    name = f"python{sys.version_info.major}.{sys.version_info.minor} -m"
    assert name in install
    install = install.replace(name, f"{sys.executable} -m")
    bundle = write_untrained_bundle(tmp_path)
    predict = (
        f".venv/bin/strokeseg predict --bundle {bundle} --input {phantom_cases} "
        f"--output {tmp_path / 'masks'}"
    )
    for command in (install, predict):
        done = subprocess.run(
            [*shell, command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks").rglob("*_mask.nii.gz"))) == 6

    # What was damaged on the way is not installed.
    weights[0].write_bytes(weights[0].read_bytes()[:-1])
    check = subprocess.run(install, shell=True, cwd=folder, capture_output=True, check=False)
    assert check.returncode != 0 and b"weights/resnet18.safetensors" in check.stdout
