"""`cluster/slurm.sh` under a real Slurm of one node, which the test starts on loopback and ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_experiment import write_experiment

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "slurm.sh"
SECONDS = 400.0
CONFIGURATION = """\
ClusterName=strokeseg-test
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
KillWait=5
FirstJobId={first_job}
NodeName={name} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def eventually(what: str, holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A controller and a node on this machine.

    Attributes:
        environment: Names the configuration, for Slurm's commands.
        folder: For its files.
    """

    environment: dict[str, str]
    folder: Path

    def ask(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    def submit(self, *options: str, arguments: tuple[str, ...]) -> tuple[str, Path]:
        """Submit the script for this node and return the job's number and log."""
        log = self.folder / "job-%j.log"
        job = self.ask(
            *("sbatch", "--parsable", "--nodes=1", "--cpus-per-task=2", "--gpus-per-node=0"),
            *("--mem=6000", f"--output={log}", *options, str(SCRIPT), *arguments),
        )
        return job, self.folder / f"job-{job}.log"

    def state(self, job: str) -> str:
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return shown.partition("JobState=")[2].split()[0]

    def ended(self, job: str) -> bool:
        return self.state(job) not in {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: Debian's package slurm-wlm has them")
    if os.geteuid() != 0:
        pytest.skip("starting Slurm's daemons takes root")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            name=socket.gethostname().partition(".")[0],
            controller_port=free_port(),
            daemon_port=free_port(),
            folder=folder,
            first_job=100_000 + os.getpid(),
        )
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "SLURM_CONF": str(configuration),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    daemons = []
    try:
        for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("w") as out:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
                )
        slurm = Slurm(environment=environment, folder=folder)
        eventually("an idle node", lambda: is_idle(slurm), 30)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def is_idle(slurm: Slurm) -> bool:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"],
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() == "idle"


def processes_of(job: str) -> list[str]:
    """Whatever carries the job's number in its environment or its temporary folder's name."""
    marks = (f"SLURM_JOB_ID={job}", f"/tmp/strokeseg-{job}")
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(mark in word for word in words for mark in marks):
            found.append(f"{process.pid} {process.name()}")
    return found


def leaves_nothing(job: str) -> bool:
    return not processes_of(job) and not Path(f"/tmp/strokeseg-{job}").exists()


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    config = write_experiment(tmp_path, search={"trials": 1, "epochs": 1, "grace_epochs": 1})
    return ("--experiment", str(config), "--storage", str(tmp_path / "runs"))


@pytest.mark.slow
def test_a_cancelled_job_leaves_nothing_and_the_same_line_goes_on_to_the_bundle(
    slurm: Slurm, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    results = tmp_path / "runs" / "tiny"
    first, log = slurm.submit(arguments=arguments)
    eventually(
        "the first search begins",
        lambda: (results / "search" / "axial" / "journal.log").exists() or slurm.ended(first),
        SECONDS,
    )
    assert slurm.state(first) == "RUNNING", log.read_text()
    slurm.ask("scancel", "--batch", "--signal=TERM", first)
    eventually("the cancelled job ends", lambda: slurm.ended(first), 60)
    assert "the same sbatch line goes on" in log.read_text()
    eventually("nothing is left of it", lambda: leaves_nothing(first), 30)

    second, log = slurm.submit(arguments=arguments)
    eventually("the second job ends", lambda: slurm.ended(second), SECONDS)
    assert slurm.state(second) == "COMPLETED", log.read_text()
    assert (results / "bundle.zip").is_file()
    eventually("nothing is left of it", lambda: leaves_nothing(second), 30)


def test_the_drivers_exit_code_is_the_jobs(slurm: Slurm, tmp_path: Path) -> None:
    job, log = slurm.submit(arguments=("--experiment", str(tmp_path / "nowhere.yaml")))
    eventually("the job ends", lambda: slurm.ended(job), 120)
    assert slurm.state(job) == "FAILED", log.read_text()
    assert "ExitCode=2:0" in slurm.ask("scontrol", "--oneliner", "show", "job", job)
    eventually("nothing is left of it", lambda: leaves_nothing(job), 30)
