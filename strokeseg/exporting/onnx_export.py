"""A member as one ONNX file.

The file takes slices (B, C, H, W) float32, H and W multiples of 32, and gives probabilities
(B, 1, H, W); its weights lie inside it, its metadata hold the member's record, and equal members
give equal bytes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim

from strokeseg.ensemble.onnx_predictor import IMAGE, PROBABILITY
from strokeseg.records.config import NetworkConfig
from strokeseg.records.member import METADATA_KEY
from strokeseg.training.checkpoint import Member

# None of these may be 0 or 1, which export would take for constants.
_EXAMPLE = (2, 64, 96)
# By architecture, without weights.
_graphs: dict[tuple[NetworkConfig, str], torch.onnx.ONNXProgram] = {}


class _Probability(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self._network(image))


def onnx_bytes(member: Member) -> bytes:
    """Return a member as the content of an ONNX file.

    A network's graph is traced once in a process, which takes seconds; networks of the same
    architecture differ by their weights only.

    Args:
        member: On the CPU.
    """
    network = _Probability(_with_fixed_padding(member.network)).eval()
    # The configuration alone would not show a change of the code, nor the modules every detail of
    # an encoder.
    architecture = (member.record.config.network, repr(network))
    with _quiet():
        if architecture not in _graphs:
            _graphs[architecture] = _trace(network, channels=len(member.record.channels))
        program = copy.copy(_graphs[architecture])
        program.model = program.model.clone()
        program.apply_weights(network.state_dict())
        program.optimize()
    model = program.model_proto
    _forget_where(model.graph)
    model.metadata_props.add(key=METADATA_KEY, value=member.record.model_dump_json())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _trace(network: nn.Module, channels: int) -> torch.onnx.ONNXProgram:
    """Return a network's graph as it is before any optimisation, without its weights."""
    batch, height, width = _EXAMPLE
    shapes = {0: Dim("batch"), 2: 32 * Dim("h"), 3: 32 * Dim("w")}
    program = torch.onnx.export(
        network,
        (torch.zeros(batch, channels, height, width),),
        input_names=[IMAGE],
        output_names=[PROBABILITY],
        dynamic_shapes=(shapes,),
        dynamo=True,
        external_data=False,
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    initializers = program.model.graph.initializers
    for name in network.state_dict().keys() & initializers.keys():
        initializers[name].const_value = None
    program.exported_program = None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says: it concerns its own makers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _with_fixed_padding(network: nn.Module) -> nn.Module:
    """Return a copy whose "same" convolutions pad by numbers, not by what they are given.

    Where the stride divides the size, as it does in slices of multiples of 32, these paddings
    are one. Export would carry the formula through every later layer, for minutes.

    Source: TensorFlow's padding "SAME", as in timm.layers.padding.
    """
    network = copy.deepcopy(network)
    found = [(name, part) for name, part in network.named_modules() if type(part) is Conv2dSame]
    for name, convolution in found:
        top, bottom = _same_padding(convolution, 0)
        left, right = _same_padding(convolution, 1)
        plain = copy.copy(convolution)
        plain.__class__ = nn.Conv2d
        plain.padding = (0, 0)
        network.set_submodule(name, nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain))
    return network


def _same_padding(convolution: nn.Conv2d, axis: int) -> tuple[int, int]:
    reach = (convolution.kernel_size[axis] - 1) * convolution.dilation[axis] + 1
    total = max(reach - convolution.stride[axis], 0)
    return total // 2, total - total // 2


def _forget_where(graph: onnx.GraphProto) -> None:
    """Remove what tells of the code and the paths that a graph was traced from."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
