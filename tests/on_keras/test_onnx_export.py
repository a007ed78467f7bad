from __future__ import annotations

import os
import resource
from pathlib import Path

import keras
import mlflow.pyfunc
import numpy as np
import onnxruntime
import pytest

from tandem.on_keras.backbones import leaf_layers
from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.onnx_export import write_onnx
from tandem.on_keras.serving import save_model
from tandem.protocol.backbones import CATALOGUE
from tandem.protocol.settings import Settings
from tests.small_runs import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    assert_same_outputs,
    random_images,
    small_settings,
    tell_images_apart,
)

MOST_BYTES = 7.5e9
"""Memory of the process that builds, saves, loads and exports a network."""


def built(settings: Settings) -> Classifier:
    """A network whose residual branches begin small, as trained ones are; otherwise a deep one amplifies rounding."""
    network = build_classifier(settings, NUM_CLASSES)
    for layer in leaf_layers(network.backbone):
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(keras.ops.full_like(layer.gamma, 0.2))
    return tell_images_apart(network)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name != "mobilenet_v2" and "TANDEM_TEST_EXPORTS" not in os.environ,
                reason="takes minutes, and its own process for the limit of memory: make test-exports",
            ),
        )
        for name in CATALOGUE
    ],
)
def test_onnx_file_gives_the_probabilities_of_the_network(name: str, tmp_path: Path) -> None:
    settings = small_settings(backbone=name, image_size=max(64, CATALOGUE[name].min_image_size))
    save_model(
        built(settings),
        tmp_path / "network",
        image_shape=IMAGE_SHAPE,
        num_classes=NUM_CLASSES,
    )
    file = tmp_path / "model.onnx"
    write_onnx(tmp_path / "network", file, input_name="images", output_name="probabilities", opset=18)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = random_images(7)
    expected = np.asarray(mlflow.pyfunc.load_model(str(tmp_path / "network")).predict(images))
    for size in (1, 7):  # any batch size
        received = [session.run(["probabilities"], {"images": batch})[0] for batch in np.split(images, 7 // size)]
        assert_same_outputs(np.concatenate(received), expected, atol=1e-4)
    if "TANDEM_TEST_EXPORTS" in os.environ:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_BYTES
