"""A bundle's files in MONAI's words, as MONAI's own command reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from monai.bundle import verify_metadata

from strokeseg.exporting.monai_files import metadata, metadata_schema
from strokeseg.records.ensemble import EnsembleRecord


@pytest.fixture
def described() -> dict[str, Any]:
    record = EnsembleRecord.model_validate(
        {
            "name": "toy",
            "sequences": ("DWI", "FLAIR"),
            "members": {"axial": ("axial-0.safetensors",)},
            "preparation_hash": "abc",
            "code_version": "1.2",
        }
    )
    return metadata(
        record,
        description="Three networks that vote.",
        data_source="Twelve cases.",
        metrics={"mean_dice": 0.5},
        versions={"torch": "2.9", "numpy": "2.1", "onnxruntime": "1.20"},
        facts={"splits_hash": "def"},
    )


def test_metadata_say_what_goes_in_and_what_comes_out(described: dict[str, Any]) -> None:
    jsonschema.validate(described, metadata_schema())
    formats = described["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == {"0": "DWI", "1": "FLAIR"}
    assert formats["inputs"]["image"]["num_channels"] == 2
    assert formats["outputs"]["pred"]["value_range"] == [0, 1]
    assert described["pytorch_version"] == "2.9"
    assert described["required_packages_version"] == {"numpy": "2.1", "onnxruntime": "1.20"}
    assert described["optional_packages_version"] == {"torch": "2.9"}


@pytest.mark.parametrize("key", ["version", "network_data_format", "pytorch_version"])
def test_the_schema_refuses_metadata_without_a_key(described: dict[str, Any], key: str) -> None:
    del described[key]
    with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
        jsonschema.validate(described, metadata_schema())


def test_the_schema_refuses_a_tensor_without_channels(described: dict[str, Any]) -> None:
    described["network_data_format"]["inputs"]["image"]["num_channels"] = 0
    with pytest.raises(jsonschema.ValidationError, match="less than the minimum"):
        jsonschema.validate(described, metadata_schema())


def test_monai_verifies_the_metadata_without_a_network(
    described: dict[str, Any], tmp_path: Path
) -> None:
    meta, schema = tmp_path / "metadata.json", tmp_path / "schema.json"
    schema.write_text(json.dumps(metadata_schema()))
    meta.write_text(json.dumps(described))
    verify_metadata(meta_file=str(meta), filepath=str(schema))
    del described["task"]
    meta.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(meta), filepath=str(schema))
