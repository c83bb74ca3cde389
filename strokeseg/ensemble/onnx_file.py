"""An ONNX file as what it is: somebody else's.

ONNX is one protocol-buffers message, the *model*, of messages in messages. A model may point to
*external data*, weights in another file whose path it chooses, and may hold control flow. Ours
do neither, so any that does is refused before a runtime sees it.

Source: onnx.proto of ONNX 1.17, whose field numbers these are, and the protocol buffers'
encoding, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from strokeseg.errors import UserError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 20
# By kind of message, the fields that hold further messages of interest. Of an attribute's fields
# those that hold graphs are control flow; of a tensor's, those about where its data are.
_INNER: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_REFUSED: Mapping[tuple[str, int], str] = {
    ("attribute", 6): "control flow",
    ("attribute", 11): "control flow",
    ("tensor", 13): "external data",
}
_DATA_LOCATION = ("tensor", 14)


def check_onnx(name: str, content: bytes) -> None:
    """Check that a model holds all its weights itself, and no control flow.

    Args:
        name: What messages call the file.

    Raises:
        UserError: When it does not, or is no proper ONNX file.
    """
    try:
        _check(name, "model", memoryview(content), 0)
    except (IndexError, ValueError) as error:
        raise UserError(f"{name}: is no proper ONNX file ({error}); fetch it again") from None


def _check(name: str, kind: str, message: memoryview, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("messages are nested too deep")
    inner = _INNER.get(kind, {})
    for field, value in _fields(message):
        located_outside = (kind, field) == _DATA_LOCATION and value != 0
        if located_outside or (kind, field) in _REFUSED:
            what = _REFUSED.get((kind, field), "external data")
            raise UserError(f"{name}: must hold its weights and one plain graph, got {what}")
        if field in inner:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {field} of a {kind} holds no message")
            _check(name, inner[field], value, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Give the number of every field, and its value: a number, or bytes uncopied."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} is not known")
        if length > len(message) - position:
            raise ValueError("a field is longer than its message")
        yield field, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is longer than 10 bytes")
