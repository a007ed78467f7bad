from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest

from tandem.evaluation.imagenet import NUM_OUTPUTS, mapped_logits
from tandem.on_keras.cost import count_macs
from tandem.on_keras.gradcam import features_and_gradients
from tandem.on_keras.mapped_head import map_head
from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.serving import save_model
from tests.oracles import softmax
from tests.small_runs import IMAGE_SHAPE, assert_same_outputs, random_images, small_settings, tell_images_apart
from train_keras import predict_batch

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ((7,), (0, 999, 12), (301,))
IMAGES = random_images(5)


@pytest.fixture(scope="module")
def network() -> Classifier:
    return tell_images_apart(build_classifier(small_settings(), NUM_OUTPUTS))


def test_mapped_network_gives_the_mapped_logits(network: Classifier) -> None:
    logits = predict_batch(network, small_settings(), IMAGES)
    mapped = predict_batch(map_head(network, OUTPUTS), small_settings(), IMAGES)
    assert_same_outputs(mapped, mapped_logits(logits, OUTPUTS), atol=1e-5)


def test_grad_cam_of_a_class_is_that_of_its_output(network: Classifier) -> None:
    of_class = features_and_gradients(map_head(network, OUTPUTS), IMAGES, np.array([0, 2, 2, 0, 0]))
    of_output = features_and_gradients(network, IMAGES, np.array([7, 301, 301, 7, 7]))
    for mapped, plain in zip(of_class, of_output, strict=True):
        assert_same_outputs(mapped, plain, atol=1e-6)


def test_mapping_does_not_change_the_cost(network: Classifier) -> None:
    # MobileNetV2 at 32 pixels, and a dense layer of 1280 x 1000
    assert count_macs(map_head(network, OUTPUTS)) == count_macs(network) > 1_280_000


def test_mapped_network_can_be_served(network: Classifier, tmp_path: Path) -> None:
    mapped = map_head(network, OUTPUTS)
    save_model(mapped, tmp_path / "model", image_shape=IMAGE_SHAPE, num_classes=3)
    probabilities = np.asarray(mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(IMAGES))
    assert_same_outputs(probabilities, softmax(predict_batch(mapped, small_settings(), IMAGES)), atol=1e-5)


# A network with all that Tandem adds to Keras's layers; images are on the device before they are counted.
COPIES = """
import keras, numpy as np, torch
from torch.overrides import TorchFunctionMode
from tandem.on_keras.mapped_head import map_head
from tandem.on_keras.networks import Classifier, Pixels
from tandem.on_keras.pooling import adaptive_average_pool

class Copies(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.values = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.as_tensor, torch.tensor, torch.from_numpy) and not isinstance(args[0], torch.Tensor):
            self.values.append(args[0])
        return function(*args, **(kwargs or {}))

def copies_of(call):
    with torch.no_grad(), Copies() as copies:
        call()
    return copies.values

images = keras.Input((12, 12, 3))
backbone = keras.Model(images, keras.layers.Flatten()(adaptive_average_pool(images, 5)))
head = keras.Sequential([keras.Input((75,)), keras.layers.Dense(1000)])
network = map_head(Classifier(Pixels(12, "caffe"), backbone, head), OUTPUTS)
batch = keras.ops.convert_to_tensor(np.zeros((2, 8, 8, 3), np.uint8))
print(keras.backend.backend(), len(copies_of(lambda: keras.ops.take(batch, [0, 1], axis=1))))
print("copies:", copies_of(lambda: network(batch)))
"""


def test_call_copies_nothing_to_the_device_on_torch() -> None:
    # in a process of its own, since Keras reads its backend when it is imported
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
    code = COPIES.replace("OUTPUTS", str(OUTPUTS))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["torch 1", "copies: []"]
