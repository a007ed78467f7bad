from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import onnxruntime
import pytest
import torch
from torchvision.models.resnet import Bottleneck

from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.onnx_export import write_onnx
from tandem.on_torch.serving import save_model
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


def built(settings: Settings) -> Classifier:
    """A network whose residual branches begin small, as trained ones are; otherwise a deep one amplifies rounding."""
    network = build_classifier(settings, NUM_CLASSES)
    for module in network.modules():
        if isinstance(module, Bottleneck):
            torch.nn.init.constant_(module.bn3.weight, 0.2)
    return tell_images_apart(network)


@pytest.mark.long
@pytest.mark.parametrize("name", CATALOGUE)
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
