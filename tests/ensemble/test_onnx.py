"""Members as ONNX files: the same maps as PyTorch's, and nothing that reaches outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from strokeseg.ensemble.bundle import open_bundle, write_bundle
from strokeseg.ensemble.onnx_file import check_onnx
from strokeseg.ensemble.onnx_predictor import load_onnx_predictors, read_onnx_predictor
from strokeseg.ensemble.runtimes import choose_runtime
from strokeseg.ensemble.torch_predictor import as_predictor, load_ensemble
from strokeseg.errors import UserError
from strokeseg.exporting.onnx_export import onnx_bytes
from strokeseg.records.config import NetworkConfig
from strokeseg.records.ensemble import EnsembleRecord
from strokeseg.records.member import MemberRecord
from strokeseg.training.checkpoint import Member, load_member
from strokeseg.training.network import build_network

_AXIAL = "axial-0.safetensors"


def _slices(batch: int, height: int, width: int) -> np.ndarray:
    """Noise of two channels, with no brain in the upper half."""
    images = np.random.default_rng(0).normal(size=(batch, 2, height, width)).astype(np.float32)
    images[:, :, : height // 2] = 0
    return images


def _record(*names: str, **changes: object) -> EnsembleRecord:
    values = {
        "name": "toy",
        "sequences": ("DWI", "FLAIR"),
        "members": {"axial": names},
        "preparation_hash": "abc",
        "code_version": "1",
    }
    return EnsembleRecord.model_validate(values | changes)


@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 64, 32), (3, 96, 160)])
def test_onnxruntime_gives_the_maps_of_torch_at_every_size(
    ensemble_folder: Path, onnx_files: dict[str, bytes], shape: tuple[int, int, int]
) -> None:
    images = _slices(*shape)
    ours = load_ensemble(ensemble_folder).predictors[0].predict(images)
    predictor = read_onnx_predictor(
        Path("axial-0.onnx"), onnx_files[_AXIAL], "axial", _record(_AXIAL)
    )
    theirs = predictor.predict(images)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=2e-5)
    assert (theirs[:, : shape[1] // 2] == 0).all()
    assert predictor.name == "axial-0"


def test_networks_whose_padding_depends_on_the_size_export_too(
    member_record: Callable[..., MemberRecord],
) -> None:
    network = build_network(
        NetworkConfig(encoder="tu-tf_efficientnet_lite0", encoder_depth=3), channels=2, seed=1
    ).eval()
    member = Member(network=network, record=member_record(slice_size=(64, 64)))
    predictor = read_onnx_predictor(
        Path("axial-0.onnx"), onnx_bytes(member), "axial", _record(_AXIAL)
    )
    for height, width in [(32, 32), (64, 160)]:
        images = _slices(2, height, width)
        np.testing.assert_allclose(
            predictor.predict(images), as_predictor("member", member).predict(images), atol=1e-4
        )
    assert predictor.slice_size == (64, 64)


def test_networks_of_one_architecture_keep_their_own_weights(
    member_record: Callable[..., MemberRecord],
) -> None:
    images = _slices(2, 64, 64)
    maps = []
    for seed in (1, 2):
        network = build_network(
            NetworkConfig(encoder="resnet18", encoder_depth=3), channels=2, seed=seed
        )
        member = Member(network=network.eval(), record=member_record())
        predictor = read_onnx_predictor(
            Path("axial-0.onnx"), onnx_bytes(member), "axial", _record(_AXIAL)
        )
        maps.append(predictor.predict(images))
        ours = as_predictor("member", member).predict(images)
        np.testing.assert_allclose(maps[-1], ours, atol=2e-5)
    assert np.abs(maps[0] - maps[1]).max() > 100 * 2e-5


def test_equal_members_give_equal_bytes_that_name_no_path(
    ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    again = onnx_bytes(load_member(ensemble_folder / "members" / _AXIAL))
    assert again == onnx_files[_AXIAL]
    model = onnx.load_from_string(again)
    for weights in model.graph.initializer:
        # Any three bytes may be among these.
        weights.ClearField("raw_data")
    output = model.SerializeToString()
    assert str(Path(__file__).parents[2]).encode() not in output
    assert b"site-packages" not in output
    assert b".py" not in output


def _model(**changes: object) -> onnx.ModelProto:
    """A model that adds a weight to its input."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "w"], ["probability"])],
        "add",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 2, 32, 32])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["b", 2, 32, 32])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _with_external_data() -> onnx.ModelProto:
    model = _model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return model


def _with_a_constant_outside() -> onnx.ModelProto:
    model = _model()
    node = model.graph.node.add(op_type="Constant", output=["c"])
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="c.bin")
    node.attribute.append(helper.make_attribute("value", tensor))
    return model


def _with_a_loop() -> onnx.ModelProto:
    model = _model()
    node = model.graph.node.add(op_type="Loop", output=["l"])
    node.attribute.append(helper.make_attribute("body", model.graph))
    return model


def _with_a_function_that_loops() -> onnx.ModelProto:
    model = _model()
    node = helper.make_node("If", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("then_branch", model.graph))
    function = helper.make_function("own", "F", ["x"], ["y"], [node], model.opset_import)
    model.functions.append(function)
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_with_external_data, "external data"),
        (_with_a_constant_outside, "external data"),
        (_with_a_loop, "control flow"),
        (_with_a_function_that_loops, "control flow"),
    ],
)
def test_models_that_reach_outside_or_loop_are_refused(
    make: Callable[[], onnx.ModelProto], words: str
) -> None:
    with pytest.raises(UserError, match=f"x.onnx: must hold .* got {words}"):
        check_onnx("x.onnx", make().SerializeToString())


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\x7f", b"\x0b", b"\x80", b"\x38\x01"])
def test_what_is_no_onnx_is_refused_in_one_line(content: bytes) -> None:
    # Endless number; a graph longer than the file; a group; half a number; a graph that is 1.
    with pytest.raises(UserError, match="no proper ONNX file"):
        check_onnx("x.onnx", content)


def test_our_own_and_plain_models_pass(onnx_files: dict[str, bytes]) -> None:
    check_onnx("x.onnx", _model().SerializeToString())
    for name, content in onnx_files.items():
        check_onnx(name, content)


def _signed(model: onnx.ModelProto, record: str) -> bytes:
    model.metadata_props.add(key="strokeseg", value=record)
    return model.SerializeToString()


def test_members_that_are_none_or_do_not_fit_are_refused(
    tmp_path: Path, onnx_files: dict[str, bytes], member_record: Callable[..., MemberRecord]
) -> None:
    record, path = _record(_AXIAL), tmp_path / "axial-0.onnx"
    with pytest.raises(UserError, match="no readable member"):
        load_onnx_predictors(tmp_path, record)
    for content, words in [
        (b"", "onnxruntime cannot load it"),
        (_model().SerializeToString(), "it holds no record"),
        (_signed(_model(), "{}"), "axis"),
        (onnx_files["coronal-1.safetensors"], "must be a member for axis"),
        (onnx_files[_AXIAL].replace(b"probability", b"probabilitx"), r"must take image and give"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            load_onnx_predictors(tmp_path, record)
        assert "\n" not in str(caught.value)
    content = _signed(_model(), member_record().model_dump_json())
    wrong = read_onnx_predictor(path, content, "axial", record)
    with pytest.raises(UserError, match=r"must give float32 of shape \(1, 1, 32, 32\)"):
        wrong.predict(_slices(1, 32, 32))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU"
)
def test_a_gpu_that_onnxruntime_does_not_find_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device cuda: onnxruntime finds no GPU"):
        load_onnx_predictors(tmp_path, _record(_AXIAL), "cuda")


_WITHOUT_TORCH = """
import json, sys
BLOCKED = ("torch", "ray", "segmentation_models_pytorch", "timm", "pyarrow", "pandas",
           "safetensors", "optuna", "onnx")
for name in BLOCKED:
    sys.modules[name] = None
from pathlib import Path
from strokeseg import cli
from strokeseg.ensemble import devices
from strokeseg.imaging.prepared import prepare_case
from strokeseg.ensemble.bundle import open_bundle
from strokeseg.ensemble.runtimes import choose_runtime
from strokeseg.ensemble.vote import segment
import strokeseg.predict
bundle, images = Path(sys.argv[1]), json.loads(sys.argv[2])
ensemble = open_bundle(bundle)
prepared = prepare_case(
    {key: Path(path) for key, path in images.items()}, sequences=ensemble.record.sequences
)
decision = segment(ensemble, prepared)
import numpy as np
np.savez(sys.argv[3], mask=decision.mask, probability=decision.probability)
print(choose_runtime(None))
"""


def test_a_bundle_needs_neither_torch_nor_ray_and_gives_the_same_mask(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    bundle = tmp_path / "bundle.zip"
    write_bundle(bundle, ensemble_folder, onnx_files=onnx_files, extra={})
    generator = np.random.default_rng(0)
    images = {}
    for sequence in ("DWI", "FLAIR"):
        voxels = np.zeros((30, 40, 12), dtype=np.float32)
        voxels[4:26, 5:35, 1:11] = generator.uniform(50, 150, size=(22, 30, 10))
        images[sequence] = str(tmp_path / f"{sequence}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 4.0, 1.0])), images[sequence])
    masks = {}
    for place in ("with", "without"):
        code = _WITHOUT_TORCH if place == "without" else _WITHOUT_TORCH.replace("= None", "")
        code = code if place == "without" else code.replace("    sys.modules[name]", "    pass")
        ended = subprocess.run(
            [sys.executable, "-c", code, bundle, json.dumps(images), tmp_path / f"{place}.npz"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip() == {"with": "torch", "without": "onnx"}[place]
        masks[place] = np.load(tmp_path / f"{place}.npz")
    np.testing.assert_allclose(
        masks["without"]["probability"], masks["with"]["probability"], atol=1e-5
    )
    np.testing.assert_array_equal(masks["without"]["mask"], masks["with"]["mask"])


def test_the_runtime_asked_for_is_taken_and_opens_the_same_members(
    tmp_path: Path, ensemble_folder: Path, onnx_files: dict[str, bytes]
) -> None:
    assert choose_runtime(None) == choose_runtime("torch") == "torch"
    assert choose_runtime("onnx") == "onnx"
    bundle = tmp_path / "bundle.zip"
    write_bundle(bundle, ensemble_folder, onnx_files=onnx_files, extra={})
    by_torch, by_onnx = open_bundle(bundle, "torch", "cpu"), open_bundle(bundle, "onnx", "cpu")
    assert by_torch.record == by_onnx.record
    images = _slices(2, 64, 64)
    for first, second in zip(by_torch.predictors, by_onnx.predictors, strict=True):
        assert (first.name, first.axis) == (second.name, second.axis)
        np.testing.assert_allclose(first.predict(images), second.predict(images), atol=2e-5)


@pytest.mark.parametrize(
    ("missing", "runtime", "words"),
    [
        ("torch", "torch", "--runtime torch: PyTorch is not installed here"),
        ("onnxruntime", "onnx", "--runtime onnx: onnxruntime is not installed here"),
    ],
)
def test_a_missing_runtime_is_one_line(
    monkeypatch: pytest.MonkeyPatch, missing: str, runtime: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=words):
        choose_runtime(runtime)  # type: ignore[arg-type]
