from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from mlflow.tracking import MlflowClient
from onnx import TensorProto, helper

from tandem.errors import UserError
from tandem.export import exporting
from tandem.export.__main__ import main
from tandem.serving.onnx_file import DESCRIPTION_KEY, INPUT, OUTPUT, open_onnx
from tandem.tracking.numbers import read_numbers
from tests.serving.logged import DESCRIPTION, log_run
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


@pytest.mark.parametrize("kind", ["torch_export", "saved_model"])
def test_format_without_a_check_refuses_unchecked(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        main(["runs:/1", "--format", kind, "--unchecked", "--output", str(tmp_path / "network")])
    assert str(caught.value) == (
        f"--unchecked: received with --format {kind}, allowed: with --format onnx, the only one whose predictions are "
        "compared; leave it out"
    )


@pytest.mark.parametrize(
    ("framework", "kind", "allowed"),
    [("torch", "saved_model", "onnx, torch_export"), ("keras", "torch_export", "onnx, saved_model")],
)
def test_format_of_the_other_framework_is_refused(
    framework: str, kind: str, allowed: str, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = log_run(client, tmp_path, framework=framework)
    with pytest.raises(
        UserError, match=rf"^--format: received {kind} for a network of {framework}; allowed: {allowed}$"
    ):
        main([f"runs:/{run_id}", "--format", kind, "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"])


def test_unchecked_onnx_file_is_compared_with_the_network_but_not_with_recorded_predictions(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = log_run(client, tmp_path)  # without its settings, so its test images cannot be found
    monkeypatch.setattr(exporting, "_write_onnx", lambda stored, path, name: write_mean_colours(path))
    words = [
        f"runs:/{run_id}",
        "--tracking.uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--output",
        str(tmp_path / "m.onnx"),
    ]
    with pytest.raises(UserError):
        main(words)
    assert not list(tmp_path.glob("*.onnx"))
    capsys.readouterr()
    main([*words, "--unchecked"])
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.endswith(", on images of noise") and second.startswith("Latency in ONNX Runtime on one thread: ")
    assert last == f"Exported: {tmp_path / 'm.onnx'}" and open_onnx(tmp_path / "m.onnx").description == DESCRIPTION
    assert read_numbers(client.get_run(run_id))["cost/onnx_latency_milliseconds"] > 0
