"""What computes an ensemble's networks: a *runtime*, PyTorch or onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, TypeAlias

from strokeseg.errors import UserError

Runtime: TypeAlias = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")

_NEEDS: Mapping[Runtime, tuple[str, ...]] = {
    "torch": ("torch", "safetensors", "segmentation_models_pytorch"),
    "onnx": ("onnxruntime",),
}


def choose_runtime(runtime: Runtime | None) -> Runtime:
    """Return the runtime that computes where this one, or any, is asked for.

    Raises:
        UserError: When it is not installed.
    """
    for choice in RUNTIMES if runtime is None else (runtime,):
        if all(find_spec(package) is not None for package in _NEEDS[choice]):
            return choice
    if runtime == "torch":
        raise UserError(
            "--runtime torch: PyTorch is not installed here; pip install '.[search]' "
            "in a checkout of strokeseg, or use --runtime onnx"
        )
    given = "no runtime" if runtime is None else "--runtime onnx"
    raise UserError(
        f"{given}: onnxruntime is not installed here; pip install '.[predict]' in a checkout of "
        "strokeseg"
    )
