"""A YAML file as what it is: somebody else's.

A few lines of YAML stand for as many values as somebody likes: an *alias* repeats what an *anchor*
names, aliases of aliases repeat it a billion times, and a *merge* copies all that it names. So a
file is read into *nodes*, as they are written, and counted with all repeats before any value is
made of them. Nothing but plain values is made: no tag names a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from strokeseg.errors import UserError, shown

_MOST_BYTES = 1 << 18
_MOST_NODES = 20_000
_DEEPEST = 50


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: When the file is missing, is no YAML, holds no mapping, or more than any
            configuration needs.
    """
    text = _read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_size(path, node)
        values = None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except Exception as error:
        # PyYAML lets through whatever its conversions raise: a ValueError for the date 2024-13-45,
        # a KeyError for `!!bool x`, a RecursionError for 500 levels.
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise UserError(f"{path}: is no valid YAML ({reason}); correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of settings, got {type(values).__name__}")
    return values


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: cannot be read (it is no file); check the path")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"{path}: must have at most {_MOST_BYTES} bytes; is it another file?")
        return content.decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: is no valid YAML ({error}); correct it") from None


def _check_size(path: Path, root: yaml.Node) -> None:
    """Check how many nodes there are with all repeats, and how deep they lie.

    Raises:
        UserError: When there are too many, they lie too deep, or an anchor holds itself.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in above or len(above) > _DEEPEST:
            raise UserError(
                f"{path}: must nest settings at most {_DEEPEST} deep, and no anchor in itself; "
                "write them out"
            )
        above.add(id(node))
        inner = [part for pair in node.value for part in _parts(pair)] if _has_inner(node) else []
        sizes[id(node)] = 1 + sum(map(size, inner))
        above.discard(id(node))
        if sizes[id(node)] > _MOST_NODES:
            raise UserError(
                f"{path}: must hold at most {_MOST_NODES} values, aliases counted as often as "
                "they repeat; write out what is needed"
            )
        return sizes[id(node)]

    size(root)


def _has_inner(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode)


def _parts(pair: Any) -> tuple[yaml.Node, ...]:
    """The nodes of an item of a sequence, or of a pair of a mapping."""
    return pair if isinstance(pair, tuple) else (pair,)
