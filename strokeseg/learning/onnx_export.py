"""A member as one ONNX file.

The file takes slices (B, C, H, W) float32, H and W multiples of 32, and gives probabilities
(B, 1, H, W); its weights lie inside it, its metadata hold the member's record, and equal members
give equal bytes.
"""

from __future__ import annotations

import copy
import logging
import warnings

import onnx
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim

from strokeseg.learning.checkpoint import Member
from strokeseg.learning.member_record import METADATA_KEY
from strokeseg.learning.onnx_experts import IMAGE, PROBABILITY

# None of these may be 0 or 1, which export would take for constants.
_EXAMPLE = (2, 64, 96)


class _Probability(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self._network(image))


def onnx_bytes(member: Member) -> bytes:
    """Return a member as the content of an ONNX file.

    Args:
        member: On the CPU.
    """
    batch, height, width = _EXAMPLE
    example = torch.zeros(batch, len(member.record.channels), height, width)
    shapes = {0: Dim("batch"), 2: 32 * Dim("h"), 3: 32 * Dim("w")}
    # What it warns of concerns its own makers.
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Probability(_with_fixed_padding(member.network)).eval(),
                (example,),
                input_names=[IMAGE],
                output_names=[PROBABILITY],
                dynamic_shapes=(shapes,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _forget_where(model.graph)
    model.metadata_props.add(key=METADATA_KEY, value=member.record.model_dump_json())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


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
