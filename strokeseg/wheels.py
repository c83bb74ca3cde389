"""The wheels that a machine without a network needs.

A *wheel* is a Python package, built. A *target* is the interpreter and the kind of machine that
wheels are gathered for. A *pin* is the one version of a package that `constraints.txt` permits on
a target. Since every package is pinned there is nothing to resolve: what is needed, the wheels'
own metadata say, one after the other, and pip fetches each. Pip would judge other targets'
conditions by the interpreter that it runs on; here they are judged by the target.
"""

from __future__ import annotations

import email
import itertools
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from strokeseg.config import Show
from strokeseg.errors import UserError
from strokeseg.files import unwritable
from strokeseg.living_folder import living_folder

OWN = "strokeseg"
# The C library of RHEL 8, Debian 10 and Ubuntu 18.10; PyTorch asks for no older one.
GLIBC_MINOR = 28
_AT_ONCE = 4
_PARTIAL = ".partial-"
_BUILT_FROM = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE")
# The earliest time that a wheel can hold; with it equal code gives equal bytes.
_BUILD_TIME = "315532800"
_REMEDY = (
    "see to the network, or name an index or a folder of wheels to pip (PIP_INDEX_URL, "
    "PIP_FIND_LINKS), and give the same command again"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An interpreter on a kind of machine, always CPython on Linux.

    Attributes:
        python: Its version, such as `3.12`.
        machine: `x86_64` or `aarch64`.
    """

    python: str
    machine: str

    @property
    def _version(self) -> tuple[int, int]:
        major, minor = self.python.split(".")
        return int(major), int(minor)

    @property
    def _platforms(self) -> list[str]:
        numbered = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC_MINOR, 4, -1)]
        return [*numbered, *(f"manylinux{year}_{self.machine}" for year in (2014, 2010, 1))]

    @property
    def pip_options(self) -> list[str]:
        """What tells pip of it."""
        platforms = itertools.chain(*(("--platform", name) for name in self._platforms))
        return ["--python-version", self.python, "--implementation", "cp", *platforms]

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """The tags of the wheels that it can use."""
        version, platforms = self._version, self._platforms
        interpreter = "cp{}{}".format(*version)
        return frozenset(
            [
                *cpython_tags(python_version=version, platforms=platforms),
                *compatible_tags(version, interpreter, platforms),
            ]
        )

    def holds(self, marker: Marker | None, extras: Iterable[str] = ()) -> bool:
        """Whether a requirement's condition holds on it, for any of some extras or for none."""
        own = platform.python_version()
        same = own.startswith(f"{self.python}.")
        facts = {
            "implementation_name": "cpython",
            "implementation_version": own if same else f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": own if same else f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return marker is None or any(
            marker.evaluate({**facts, "extra": extra}) for extra in ("", *extras)
        )


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What was gathered.

    Attributes:
        wheels: By package.
        faults: What could not be had and why, a line each.
    """

    wheels: Mapping[str, Path]
    faults: tuple[str, ...]


def own_target() -> Target:
    """Return the target that this interpreter would be on Linux."""
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    return Target(python=".".join(platform.python_version_tuple()[:2]), machine=machine)


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build the wheel of strokeseg itself, and return its path in the folder.

    Raises:
        UserError: When this is no checkout, or pip cannot build it.
    """
    missing = [name for name in _BUILT_FROM if not (checkout / name).is_file()]
    if missing:
        raise UserError(
            f"{checkout}: must be a checkout of strokeseg, but {', '.join(missing)} is missing; "
            "run this from one that is installed with pip install --editable '.[cluster]'"
        )
    with _partial_folder(folder) as partial:
        source = partial / "source"
        # A copy, since building leaves files beside the code, and finds those of earlier times.
        shutil.copytree(
            checkout / OWN, source / OWN, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        for name in _BUILT_FROM:
            shutil.copy(checkout / name, source / name)
        where = ["--no-deps", "--wheel-dir", str(partial), str(source)]
        if fault := _pip("wheel", *where):
            raise UserError(f"the wheel of {OWN} itself: pip cannot build it ({fault}); {_REMEDY}")
        (built,) = partial.glob("*.whl")
        return _put(built, folder)


def gather_wheels(
    own: Path, extras: Iterable[str], constraints: Path, folder: Path, target: Target, show: Show
) -> Gathered:
    """Gather the wheels that strokeseg needs with some of its extras.

    Those that lie in the folder already are kept.

    Args:
        own: The wheel of strokeseg itself.
        extras: Of strokeseg.
        constraints: The pins.
        folder: Where wheels go.
        target: What they are for.
        show: Told of every wheel.

    Raises:
        UserError: When pip is missing, or the folder cannot be written.
    """
    if find_spec("pip") is None:
        raise UserError(
            "wheels are fetched with pip, which this environment lacks; install the extra: "
            "pip install --editable '.[cluster]' (or uv pip install the same)"
        )
    pins = read_pins(constraints, target)
    wheels, faults = {OWN: own}, dict[str, str]()
    wanted, asked = {OWN: set(extras)}, dict[str, set[str]]()
    with ThreadPoolExecutor(_AT_ONCE) as threads, _partial_folder(folder) as partial:
        while todo := [name for name, of in wanted.items() if asked.get(name) != of]:
            new = [name for name in todo if name not in wheels]
            for name, found in zip(
                new,
                threads.map(lambda name: _wheel_of(name, pins, folder, partial, target), new),
                strict=True,
            ):
                if isinstance(found, Path):
                    wheels[name] = found
                else:
                    faults[name] = found
                show(len(wheels) + len(faults), len(wanted) + 1, name)
            for name in todo:
                asked[name] = set(wanted[name])
                for needed, its_extras in _requirements(wheels.get(name), asked[name], target):
                    wanted.setdefault(needed, set()).update(its_extras)
    show(len(wanted), len(wanted), "")
    return Gathered(wheels=wheels, faults=tuple(faults.values()))


def read_pins(constraints: Path, target: Target) -> dict[str, Requirement]:
    """Return a target's pins by package.

    Raises:
        UserError: When the file is missing, or a line of it is no requirement.
    """
    try:
        lines = constraints.read_text(encoding="utf-8").splitlines()
        pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    except (OSError, InvalidRequirement) as error:
        raise UserError(f"{constraints}: cannot be read ({error}); restore it") from None
    return {canonicalize_name(pin.name): pin for pin in pins if target.holds(pin.marker)}


def _wheel_of(
    name: str, pins: Mapping[str, Requirement], folder: Path, partial: Path, target: Target
) -> Path | str:
    """Return a package's wheel, fetched where it is not there, or why there is none."""
    pin = pins.get(name)
    if pin is None:
        return (
            f"{name}: constraints.txt pins no version of it for Python {target.python} on "
            f"{target.machine}; make that file anew, as the README says"
        )
    for path in folder.glob("*.whl"):
        if _is_wanted(path, name, pin, target):
            return path
    own = partial / name
    own.mkdir(exist_ok=True)
    exact = f"{pin.name}{pin.specifier}"
    only = ["--no-deps", "--only-binary=:all:", *target.pip_options]
    if fault := _pip("download", *only, "--dest", str(own), exact):
        return f"{exact}: pip cannot fetch it ({fault}); {_REMEDY}"
    (fetched,) = own.glob("*.whl")
    return _put(fetched, folder)


def _is_wanted(path: Path, name: str, pin: Requirement, target: Target) -> bool:
    found, version, _, tags = parse_wheel_filename(path.name)
    return (
        found == name
        and pin.specifier.contains(version, prereleases=True)
        and not tags.isdisjoint(target.tags)
    )


def _requirements(
    wheel: Path | None, extras: Iterable[str], target: Target
) -> list[tuple[str, set[str]]]:
    """Return what a wheel with some extras needs on a target, and with which extras."""
    if wheel is None:
        return []
    with zipfile.ZipFile(wheel) as archive:
        # Wheels may hold whole others deeper down.
        names = (Path(one) for one in archive.namelist() if one.count("/") == 1)
        (name,) = (str(one) for one in names if one.match("*.dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    needed = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [
        (canonicalize_name(one.name), one.extras)
        for one in needed
        if target.holds(one.marker, extras)
    ]


def _pip(*arguments: str) -> str | None:
    """Run pip, and return in one line why it failed, if it did."""
    ended = subprocess.run(
        [sys.executable, "-m", "pip", arguments[0], "--quiet", "--retries=1", *arguments[1:]],
        env={**os.environ, "SOURCE_DATE_EPOCH": _BUILD_TIME, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if not ended.returncode:
        return None
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"exit code {ended.returncode}"])[-1][:300]


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with living_folder(folder, _PARTIAL) as partial:
            yield partial
    except OSError as error:
        raise unwritable(folder, error) from None


def _put(wheel: Path, folder: Path) -> Path:
    return wheel.replace(folder / wheel.name)
