"""The encoders of a search space: checked, and their pretrained weights found, before any trial.

Both build networks, and so import PyTorch, which takes seconds and half a gigabyte. A process of
its own does it while the driver starts Ray; the driver of a search needs PyTorch for nothing else.
"""

from __future__ import annotations

import sys
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from strokeseg.errors import UserError, listed
from strokeseg.records.config import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """ImageNet weights of a whole three-channel encoder, as they travel to trials.

    Attributes:
        encoder: The encoder's name.
        source: Where they came from, for the record.
        sha256: Of the file that held them.
        content: The tensors by the keys of smp's encoder of depth 5, in safetensors' format.
    """

    encoder: str
    source: str
    sha256: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class WantedEncoders:
    """What a search space asks of encoders.

    Attributes:
        path: The space's YAML file, for errors.
        networks: The deepest of each kind of network in it, as trials would build them.
        pretrained: Encoders that it may want pretrained.
        channels: Number of sequences, which every encoder must take.
        weights_dir: Where pretrained weights are looked for first.
    """

    path: Path
    networks: tuple[NetworkConfig, ...]
    pretrained: tuple[str, ...]
    channels: int
    weights_dir: Path | None


def start_finding(wanted: WantedEncoders, pool: Executor) -> Future[list[FoundWeights]]:
    """Begin `find_encoders` in a process of the pool, or do it here where PyTorch is already."""
    if "torch" not in sys.modules:
        return pool.submit(find_encoders, wanted)
    done: Future[list[FoundWeights]] = Future()
    try:
        done.set_result(find_encoders(wanted))
    except UserError as error:
        done.set_exception(error)
    return done


def find_encoders(wanted: WantedEncoders) -> list[FoundWeights]:
    """Check encoders, and find the weights of those that may be wanted pretrained.

    Raises:
        UserError: When smp and timm do not know an encoder, one does not fit a U-Net of that
            depth, or weights cannot be had.
    """
    from safetensors.torch import save  # noqa: PLC0415

    from strokeseg.training.pretrained import find_encoder_weights  # noqa: PLC0415

    check_encoders(wanted)
    found = [find_encoder_weights(name, wanted.weights_dir) for name in wanted.pretrained]
    return [
        FoundWeights(
            encoder=one.encoder, source=one.source, sha256=one.sha256, content=save(one.tensors)
        )
        for one in found
    ]


def check_encoders(wanted: WantedEncoders) -> None:
    """Check that each network of a space can be built.

    Raises:
        UserError: With every fault at once.
    """
    from strokeseg.training.network import check_network  # noqa: PLC0415

    faults = []
    for network in wanted.networks:
        try:
            check_network(network, wanted.channels)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(f"{wanted.path}: {listed(faults)}")
