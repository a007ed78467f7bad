from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tandem.errors import UserError
from tandem.serving.onnx_file import DESCRIPTION_KEY, INPUT, OUTPUT, open_onnx
from tests.serving.logged import DESCRIPTION
from tests.serving.mean_colours import mean_colours
from tests.serving.photographs import CLASSES
from tests.small_runs import assert_same_outputs, random_images


def write_mean_colours(path: Path, *, described: bool = True) -> Path:
    """The network of tests.serving.mean_colours as an ONNX file."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "twenty"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [OUTPUT], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colours",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", 20, 20, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(CLASSES)])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("twenty", TensorProto.FLOAT, [], [20.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if described:
        helper.set_model_props(model, {DESCRIPTION_KEY: DESCRIPTION.to_json()})
    onnx.save_model(model, str(path))
    return path


def test_onnx_file_predicts_with_its_own_description(tmp_path: Path) -> None:
    model = open_onnx(write_mean_colours(tmp_path / "model.onnx"))
    assert model.description == DESCRIPTION
    images = random_images(5, shape=(20, 20, 3)) // np.array([[[1, 2, 3]]], np.uint8)
    for count in (1, 5):
        received = model.network(images[:count])
        assert received.dtype == np.float32 and received.shape == (count, 3)
    images[:3, ..., 2] = 200
    assert_same_outputs(model.network(images), mean_colours(images), atol=1e-6)


def test_files_that_are_no_exports_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match=r"text.onnx cannot be opened by ONNX Runtime"):
        open_onnx(tmp_path / "text.onnx")
    with pytest.raises(UserError, match=r"bare.onnx has no description of its classes"):
        open_onnx(write_mean_colours(tmp_path / "bare.onnx", described=False))
