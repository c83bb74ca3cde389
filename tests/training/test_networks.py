"""The networks that trials describe."""

from __future__ import annotations

from itertools import product

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from strokeseg.errors import UserError
from strokeseg.records.config import NetworkConfig
from strokeseg.training.network import build_network, check_network

_OTHERS = (
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "efficientnet-b0",
    "tu-tf_efficientnet_lite0",
    "tu-mobilenetv3_small_100",
)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("encoder", "depth"),
    [
        *(("resnet18", depth) for depth in (3, 4, 5)),
        *(
            pytest.param(encoder, depth, marks=pytest.mark.slow)
            for encoder, depth in product(_OTHERS, (3, 5))
        ),
    ],
)
def test_every_parameter_of_a_network_gets_a_gradient(encoder: str, depth: int) -> None:
    network = build_network(NetworkConfig(encoder=encoder, encoder_depth=depth), channels=4)
    logits = network(torch.randn(2, 4, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 1, 64, 96)
    logits.square().mean().backward()
    idle = [name for name, value in network.named_parameters() if value.grad is None]
    assert idle == []


def test_cutting_idle_stages_keeps_the_output() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = smp.Unet(
            "resnet34", encoder_depth=3, encoder_weights=None, decoder_channels=(64, 32, 16)
        ).eval()
    network = build_network(
        NetworkConfig(encoder="resnet34", encoder_depth=3), channels=3, seed=3
    ).eval()
    slices = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(network(slices), whole(slices), atol=1e-5)
    # At depth 3 more than nine tenths of resnet34's U-Net are never used.
    assert _parameters(network) < 0.1 * _parameters(whole)


def test_the_seed_decides_the_weights_and_torchs_generator_stays_untouched() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        build_network(NetworkConfig(encoder="resnet18", encoder_depth=3), channels=1, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    key = "encoder.conv1.weight"
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [3, 5])
def test_pretrained_weights_arrive_as_smp_itself_adapts_them(channels: int, depth: int) -> None:
    source = smp.encoders.get_encoder("resnet18", weights=None)
    source_weights = {key: tensor.clone() for key, tensor in source.state_dict().items()}
    network = build_network(
        NetworkConfig(encoder="resnet18", encoder_depth=depth),
        channels=channels,
        encoder_weights=source_weights,
    )
    source.set_in_channels(channels, pretrained=True)
    expected = source.state_dict()
    encoder = network.get_submodule("encoder").state_dict()
    assert len(encoder) == (120 if depth == 5 else 60)
    for key, tensor in encoder.items():
        assert torch.allclose(tensor, expected[key]), key


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (1, [1 + 2 + 4]),
        (2, [1 * 3 / 2, 2 * 3 / 2]),
        (3, [1, 2, 4]),
        (4, [1 * 3 / 4, 2 * 3 / 4, 4 * 3 / 4, 1 * 3 / 4]),
        (5, [1 * 3 / 5, 2 * 3 / 5, 4 * 3 / 5, 1 * 3 / 5, 2 * 3 / 5]),
    ],
)
def test_red_green_and_blue_go_in_turn_to_the_channels(
    channels: int, expected: list[float]
) -> None:
    weights = dict(smp.encoders.get_encoder("resnet18", weights=None).state_dict())
    # Red weighs 1, green 2, blue 4, everywhere.
    weights["conv1.weight"] = torch.tensor([1.0, 2, 4]).view(1, 3, 1, 1).expand(64, 3, 7, 7)
    network = build_network(
        NetworkConfig(encoder="resnet18", encoder_depth=3),
        channels=channels,
        encoder_weights=weights,
    )
    first = network.state_dict()["encoder.conv1.weight"]
    assert torch.equal(first, torch.tensor(expected).view(1, -1, 1, 1).expand_as(first))


def test_weights_of_another_encoder_are_refused() -> None:
    weights = smp.encoders.get_encoder("resnet50", weights=None).state_dict()
    with pytest.raises(ValueError, match=r"weights for encoder resnet18 must have shape"):
        build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=4, encoder_weights=weights
        )
    with pytest.raises(ValueError, match=r"lack bn1\.bias"):
        build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=4, encoder_weights={}
        )


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("resnet19", "did you mean resnet18"),
        ("tu-mobilenetv3_smal_100", "did you mean tu-mobilenetv3_small_100"),
        ("timm-mobilenetv3_small_100", "did you mean tu-mobilenetv3_small_100"),
        ("tu-resnet18.nosuch", "cannot carry a U-Net"),
        ("tu-vit_tiny_patch16_224", "cannot carry a U-Net of depth 5"),
        ("tu-swin_tiny_patch4_window7_224", "choose another encoder"),
    ],
)
def test_encoders_that_cannot_be_used_are_named(encoder: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_network(NetworkConfig(encoder=encoder, encoder_depth=5), 4)
    assert repr(encoder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18.a1_in1k", "tu-convnext_atto"])
def test_encoders_that_can_be_used_pass(encoder: str) -> None:
    check_network(NetworkConfig(encoder=encoder, encoder_depth=3), 4)
