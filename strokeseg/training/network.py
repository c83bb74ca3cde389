"""The network that a trial's configuration describes: a U-Net on an encoder.

An *encoder* is named as segmentation-models-pytorch (smp) names it: one of its own, or
`tu-` and a timm model. It has five *stages*, each halving the slice; a U-Net of less
*depth* needs only the first ones, and smp keeps the others, idle. They are cut off here, so
that a network holds, trains and exports only what it uses.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from strokeseg.errors import UserError
from strokeseg.records.config import NetworkConfig

_DECODER_CHANNELS = (256, 128, 64, 32, 16)
_PROBE_SIDE = 64
_COLOURS = 3
# What smp and timm raise where an architecture gives no pyramid of features, insists on three
# channels, or insists on one size of image.
_UNBUILDABLE = (AssertionError, RuntimeError, TypeError, ValueError)


@cache
def check_network(config: NetworkConfig, channels: int) -> None:
    """Check that a network can be built, by building it.

    Raises:
        UserError: As `build_network` does.
    """
    _check_name(config.encoder)
    try:
        # Without memory for its weights: what takes time is to draw them.
        with torch.device("meta"), torch.inference_mode():
            network = _unet(config, channels).eval()
            network(torch.empty(1, channels, _PROBE_SIDE, _PROBE_SIDE))
    except (*_UNBUILDABLE, NotImplementedError):
        # Some look at their weights while they are built: the real thing decides.
        build_network(config, channels=channels)


def build_network(
    config: NetworkConfig,
    *,
    channels: int,
    encoder_weights: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build a U-Net for slices (B, channels, H, W) float32 -> logits (B, 1, H, W).

    H and W must be multiples of 2 ** encoder_depth.

    Args:
        config: What the network is; the rest of a trial's configuration is ignored.
        channels: Number of sequences.
        encoder_weights: The whole three-channel encoder by smp's keys; None for random
            numbers. The first convolution's red, green and blue go in turn to the
            channels, scaled by 3 / channels: the fourth sequence gets red's. A single
            channel gets their sum.
        seed: Decides the random numbers; torch's own generator stays untouched.

    Returns:
        The network on the CPU, in training mode, in channels-last memory.

    Raises:
        UserError: When smp and timm do not know the name (with near matches), or the
            encoder does not fit a U-Net of this depth and number of channels.
        ValueError: When `encoder_weights` do not fit the encoder.
    """
    encoder = config.encoder
    _check_name(encoder)
    try:
        network = _assemble(config, channels, seed)
    except _UNBUILDABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"encoder {encoder!r}: cannot carry a U-Net of depth {config.encoder_depth} "
            f"for {channels} sequences ({reason}); choose another encoder"
        ) from error
    if encoder_weights is not None:
        _load_encoder(network.get_submodule("encoder"), encoder_weights, encoder)
    # Module.to knows memory formats, but its declaration does not.
    layout: dict[str, Any] = {"memory_format": torch.channels_last}
    return network.to(**layout).train()


def _check_name(encoder: str) -> None:
    known = _known_encoders()
    # A timm model may name one of its sets of weights after a dot.
    name = encoder.split(".", maxsplit=1)[0] if encoder.startswith("tu-") else encoder
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the smp documentation"
        raise UserError(
            f"encoder {encoder!r}: must be a name of segmentation-models-pytorch, "
            f"or tu- and a timm model; {hint}"
        )


@cache
def _known_encoders() -> frozenset[str]:
    return frozenset(
        [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
    )


class _Idle(nn.Module):
    """What stands where a stage was cut off; smp's loops may still call it."""

    def forward(self, features: Tensor, *_: object) -> Tensor:
        """Return the features as they came; nobody looks at them."""
        return features


def _assemble(config: NetworkConfig, channels: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _unet(config, channels)
    _cut_idle_modules(network, channels)
    return network


def _unet(config: NetworkConfig, channels: int) -> nn.Module:
    network: nn.Module = smp.Unet(
        config.encoder,
        encoder_depth=config.encoder_depth,
        encoder_weights=None,
        decoder_channels=_DECODER_CHANNELS[-config.encoder_depth :],
        in_channels=channels,
        classes=1,
    )
    return network


def _cut_idle_modules(network: nn.Module, channels: int) -> None:
    """Replace the largest modules that no gradient reaches; the output stays the same.

    Raises:
        RuntimeError: When the output changes all the same.
    """
    network.eval()
    probe = torch.linspace(-1, 1, channels * _PROBE_SIDE**2)
    probe = probe.view(1, channels, _PROBE_SIDE, _PROBE_SIDE)
    before = network(probe)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(before.sum(), parameters, allow_unused=True)
    idle = {
        id(parameter)
        for parameter, gradient in zip(parameters, gradients, strict=True)
        if gradient is None
    }
    _replace_idle(network, idle)
    with torch.inference_mode():
        after = network(probe)
    if not torch.allclose(before, after):
        raise RuntimeError("cutting off its idle stages changed the network's output")


def _replace_idle(module: nn.Module, idle: set[int]) -> None:
    for name, child in list(module.named_children()):
        parameters = list(child.parameters())
        if parameters and all(id(parameter) in idle for parameter in parameters):
            setattr(module, name, _Idle())
        else:
            _replace_idle(child, idle)


def _load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    state = encoder.state_dict()
    missing = sorted(state.keys() - weights.keys())
    if missing:
        raise ValueError(f"the weights for encoder {name} lack {missing[0]}")
    for key, tensor in state.items():
        weight = weights[key]
        is_first = weight.dim() == tensor.dim() == 4 and weight.shape[1] == _COLOURS
        if is_first:
            weight = adapt_input_conv(tensor.shape[1], weight)
        if weight.shape != tensor.shape:
            raise ValueError(
                f"the weights for encoder {name} must have shape {tuple(tensor.shape)} "
                f"at {key}, got {tuple(weights[key].shape)}"
            )
        tensor.copy_(weight)
