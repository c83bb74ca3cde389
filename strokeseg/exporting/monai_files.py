"""A bundle's files in MONAI's words: metadata, their schema, and a workflow.

A MONAI Bundle holds one network as `models/model.pt`. An ensemble cannot be that: its networks
have their axes, and vote on the case's own grid. All else of the format holds, and
`configs/inference.json` runs this ensemble through MONAI.

Source: MONAI's "MONAI Bundle Specification". The schema here says what that page demands, in our
words: MONAI's own is a download, and bundles shall be verified without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strokeseg.records.ensemble import EnsembleRecord

SCHEMA_NAME = "configs/metadata.schema.json"
# Of MONAI's, by which `verify_metadata` was seen to pass; strokeseg does not need MONAI.
MONAI_VERSION = "1.6.1"
# The networks are there as ONNX too; these read and write them otherwise.
_OPTIONAL = frozenset({"torch", "onnx", "safetensors"})
_SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def metadata(
    record: EnsembleRecord,
    *,
    description: str,
    data_source: str,
    metrics: Mapping[str, float],
    versions: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of `configs/metadata.json`.

    Args:
        description: What it is, in a sentence or two.
        data_source: What it was trained on.
        metrics: Means over the test cases, by name; empty when it was not tested.
        versions: Of `torch`, `numpy` and whatever else made it.
        facts: Further keys of our own, such as hashes.
    """
    needed = {name: version for name, version in versions.items() if name not in _OPTIONAL}
    optional = {name: version for name, version in versions.items() if name in _OPTIONAL}
    return {
        "schema": _SCHEMA_URL,
        "name": record.name,
        "version": record.code_version,
        "changelog": {record.code_version: "exported by strokeseg"},
        "monai_version": MONAI_VERSION,
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": needed,
        "optional_packages_version": optional,
        "task": "segmentation of ischemic stroke lesions in multi-sequence MRI",
        "description": description,
        "authors": "whoever trained and exported this ensemble",
        "copyright": "see LICENSE",
        "data_source": data_source,
        "data_type": "nifti",
        "image_classes": f"{', '.join(record.sequences)}, skull-stripped, z-scored in the brain",
        "label_classes": "1 is lesion, 0 is everything else",
        "pred_classes": "1 channel, the probability of lesion",
        "eval_metrics": dict(metrics),
        "intended_use": "research only; not a medical device",
        "references": [],
        "network_data_format": _network_data_format(record),
        "strokeseg": dict(facts),
    }


def _network_data_format(record: EnsembleRecord) -> dict[str, Any]:
    shared = {
        "type": "image",
        "modality": "MR",
        "spatial_shape": ["32*h", "32*w"],
        "dtype": "float32",
        "is_patch_data": False,
    }
    channels = {str(channel): name for channel, name in enumerate(record.sequences)}
    return {
        "inputs": {
            "image": {
                **shared,
                "format": "magnitude",
                "num_channels": len(channels),
                "value_range": [],
                "channel_def": channels,
            }
        },
        "outputs": {
            "pred": {
                **shared,
                "format": "segmentation",
                "num_channels": 1,
                "value_range": [0, 1],
                "channel_def": {"0": "probability of lesion"},
            }
        },
    }


def metadata_schema() -> dict[str, Any]:
    """Return a JSON schema of `configs/metadata.json`."""
    text: dict[str, Any] = {"type": "string", "minLength": 1}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    size = {"anyOf": [{"type": "integer", "minimum": 1}, text]}
    tensor = {
        "type": "object",
        "required": [
            *("type", "format", "num_channels", "spatial_shape", "dtype"),
            *("value_range", "is_patch_data", "channel_def"),
        ],
        "properties": {
            "type": {"enum": ["image", "series", "tuples", "probabilities"]},
            "format": text,
            "modality": text,
            "num_channels": {"type": "integer", "minimum": 1},
            "spatial_shape": {"type": "array", "items": size, "minItems": 1, "maxItems": 3},
            "dtype": text,
            "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
            "is_patch_data": {"type": "boolean"},
            "channel_def": texts,
        },
    }
    tensors = {"type": "object", "minProperties": 1, "additionalProperties": tensor}
    needed = ("version", "monai_version", "pytorch_version", "numpy_version", "task")
    described = ("description", "authors", "copyright")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "metadata of a MONAI Bundle, as the MONAI Bundle Specification describes them",
        "type": "object",
        "required": [*needed, *described, "required_packages_version", "network_data_format"],
        "properties": {
            **dict.fromkeys(("schema", *needed, *described), text),
            "changelog": texts,
            "required_packages_version": texts,
            "optional_packages_version": texts,
            "eval_metrics": {"type": "object", "additionalProperties": {"type": "number"}},
            "references": {"type": "array", "items": {"type": "string"}},
            "network_data_format": {
                "type": "object",
                "required": ["inputs", "outputs"],
                "properties": {"inputs": tensors, "outputs": tensors},
            },
        },
    }


def inference_workflow() -> dict[str, Any]:
    """Return the content of `configs/inference.json`.

    `python -m monai.bundle run --config_file configs/inference.json --bundle_root BUNDLE
    --input CASES --output MASKS` then does what `strokeseg predict` does.
    """
    return {
        "imports": ["$import strokeseg.predict"],
        "bundle_root": ".",
        "input": "cases",
        "output": "masks",
        "arguments": ["--bundle", "@bundle_root", "--input", "@input", "--output", "@output"],
        "run": ["$strokeseg.predict.main(@arguments)"],
    }
