"""What augmentation costs: milliseconds a batch of 16 slices of 4 sequences, at strength 0.5.

The median of many batches, on one CPU thread and, where there is one, on a GPU. With a folder
that holds another version of this package, such as a git worktree of an older commit, that
version's batches are timed in turn with ours, for a ratio under the same load.

python -m benchmarks.augmentation [--before FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from strokeseg.learning.augment import augment

_SIDES = (96, 160)
_STRENGTH = 0.5
_BATCHES = 40

Augment = Callable[[Tensor, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the augmentation of a batch.")
    parser.add_argument("--before", type=Path, help="a folder that holds another strokeseg/")
    arguments = parser.parse_args()
    versions: dict[str, Augment] = {"now": augment}
    if arguments.before is not None:
        versions["before"] = _load(arguments.before)
    torch.set_num_threads(1)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for side in _SIDES:
            measured = _time(versions, torch.device(device), side)
            text = ", ".join(f"{name} {ms:.2f} ms" for name, ms in measured.items())
            ratio = (
                f", ratio {measured['now'] / measured['before']:.2f}"
                if "before" in measured
                else ""
            )
            print(f"{device}, 16 x 4 x {side} x {side}: {text}{ratio}")


def _load(folder: Path) -> Augment:
    """Return `augment` of a version that was one module standing on torch alone."""
    path = folder / "strokeseg" / "learning" / "augment.py"
    specification = importlib.util.spec_from_file_location("augment_before", path)
    if specification is None or specification.loader is None:
        raise SystemExit(f"{path} is no Python module")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.augment


def _time(versions: dict[str, Augment], device: torch.device, side: int) -> dict[str, float]:
    """Return each version's median milliseconds, taken in turns."""
    images = torch.zeros(16, 4, side, side, device=device)
    inner = slice(side // 8, -side // 8)
    images[:, :, inner, inner] = torch.randn_like(images[:, :, inner, inner])
    images = images.contiguous(memory_format=torch.channels_last)
    masks = (images[:, :1] > 2).float().contiguous()
    generators = {name: torch.Generator(device).manual_seed(0) for name in versions}
    milliseconds: dict[str, list[float]] = {name: [] for name in versions}
    for batch in range(_BATCHES + 5):
        for name, version in versions.items():
            _wait(device)
            started = time.perf_counter()
            version(images, masks, _STRENGTH, generators[name])
            _wait(device)
            if batch >= 5:
                milliseconds[name].append(1e3 * (time.perf_counter() - started))
    return {name: median(values) for name, values in milliseconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
