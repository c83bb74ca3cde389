"""A member as one ONNX file.

The file takes slices (B, C, H, W) float32, H and W multiples of 32, and gives probabilities
(B, 1, H, W); its weights lie inside it, its metadata hold the member's record, and equal members
give equal bytes.
"""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
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
                _Probability(member.network).eval(),
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


def _forget_where(graph: onnx.GraphProto) -> None:
    """Remove what tells of the code and the paths that a graph was traced from."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
