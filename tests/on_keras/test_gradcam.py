from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tandem.on_keras.gradcam import features_and_gradients
from tandem.on_keras.networks import Classifier, Pixels, build_classifier
from tandem.on_keras.weights import hash_weights
from tandem.protocol.settings import DataSettings, HeadSettings, Settings
from tests.small_runs import assert_same_outputs, random_images, tell_images_apart

ROOT = Path(__file__).resolve().parents[2]


def make_classifier(backbone: str, image_size: int = 64, **head: object) -> Classifier:
    keras.utils.set_random_seed(0)
    data = DataSettings(image_size=image_size)
    settings = Settings(backbone=backbone, weights="random", data=data, head=HeadSettings(**head))  # type: ignore[arg-type]
    shape = (image_size, image_size, 3)
    return tell_images_apart(build_classifier(settings, 3), random_images(16, shape=shape, seed=5))


def make_linear() -> Classifier:
    """A 1 x 1 convolution, global average pooling, and one dense layer."""
    pixels = keras.Input((5, 5, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1, bias_initializer="ones")(pixels))
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return Classifier(Pixels(5, "unit"), keras.Model(pixels, pooled), head)


def check_linear_network() -> None:
    network = make_linear()
    images, classes = random_images(6, shape=(5, 5, 3)), np.array([0, 1, 2, 2, 1, 0])
    features, gradients = features_and_gradients(network, images, classes)
    assert features.dtype == gradients.dtype == np.float32
    kernel, bias = network.backbone.layers[1].get_weights()
    assert_same_outputs(features, images / 255 @ kernel[0, 0] + bias, atol=1e-5)
    weights = network.head.layers[0].get_weights()[0].T[classes]
    assert_same_outputs(gradients, np.broadcast_to(weights[:, None, None] / 25, (6, 5, 5, 4)), atol=1e-7)


def test_linear_network_has_the_gradients_of_its_weights() -> None:
    check_linear_network()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_linear_network_has_the_gradients_of_its_weights_on_other_backends(backend: str) -> None:
    # in a process of its own, since Keras reads its backend when it is imported
    code = (
        "import importlib.util, keras\n"
        f"spec = importlib.util.spec_from_file_location('tests_gradcam', {json.dumps(__file__)})\n"
        "tests = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(tests)\n"
        "tests.check_linear_network()\n"
        "print(keras.backend.backend())\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == backend


def test_gradients_of_a_head_with_a_hidden_layer_are_differences_of_its_logits() -> None:
    network = make_classifier("mobilenet_v2", hidden=[8])
    hidden, last = network.head.layers
    # away from the kinks of its units
    hidden.bias.assign([0.5, -0.5] * 4)
    images, classes = random_images(2, shape=(64, 64, 3)), np.array([2, 0])
    features, gradients = features_and_gradients(network, images, classes)

    def logits(features: np.ndarray) -> np.ndarray:
        (kernel, bias), (last_kernel, last_bias) = hidden.get_weights(), last.get_weights()
        units = np.maximum(features.astype(np.float64).mean(axis=(1, 2)) @ kernel + bias, 0)
        return (units @ last_kernel + last_bias)[np.arange(2), classes]

    generator, step = np.random.default_rng(1), 1e-6
    for _ in range(5):
        direction = generator.normal(size=features.shape)
        difference = (logits(features + step * direction) - logits(features - step * direction)) / (2 * step)
        slope = (gradients * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(slope, difference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("backbone", "channels"), [("mobilenet_v2", 1280), ("resnet50", 2048), ("densenet121", 1024)])
def test_features_are_the_map_that_is_pooled(backbone: str, channels: int) -> None:
    network = make_classifier(backbone)
    images = random_images(2, shape=(64, 64, 3))
    features, gradients = features_and_gradients(network, images, np.array([0, 2]))
    assert features.shape == gradients.shape == (2, 2, 2, channels)
    pooled = network.backbone(network.pixels(images), training=False)
    assert_same_outputs(features.mean(axis=(1, 2)), keras.ops.convert_to_numpy(pooled), atol=1e-4)
    # a single dense layer: the gradient at each of the four places is a quarter of its weight
    weights = network.head.layers[0].get_weights()[0].T[[0, 2]]
    assert_same_outputs(gradients, np.broadcast_to(weights[:, None, None] / 4, gradients.shape), atol=1e-6)


def test_small_images_have_a_feature_map_of_one_cell() -> None:
    features, _ = features_and_gradients(
        make_classifier("mobilenet_v2", 32), random_images(2, shape=(32, 32, 3)), np.array([0, 1])
    )
    assert features.shape == (2, 1, 1, 1280)


@pytest.mark.parametrize("frozen", [True, False])
def test_network_is_unchanged(frozen: bool) -> None:
    network = make_classifier("mobilenet_v2", dropout=0.5)
    network.backbone.trainable = not frozen
    before = hash_weights(network)
    trainable = [(variable.path, variable.trainable) for variable in network.weights]
    layers = [layer.name for layer in network.backbone.layers]
    images = random_images(2, shape=(64, 64, 3))
    logits = network.predict_on_batch(images)
    first, _ = features_and_gradients(network, images, np.array([0, 1]))
    again, _ = features_and_gradients(network, images, np.array([0, 1]))
    np.testing.assert_array_equal(first, again)  # as in inference: no dropout, no batch statistics
    assert hash_weights(network) == before
    assert [(variable.path, variable.trainable) for variable in network.weights] == trainable
    assert [layer.name for layer in network.backbone.layers] == layers
    assert network.backbone.trainable == (not frozen)
    assert network.backbone.layers[-2].output.shape == (None, 2, 2, 1280)  # no layer is used a second time
    np.testing.assert_array_equal(network.predict_on_batch(images), logits)
