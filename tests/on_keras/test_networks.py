from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.weights import count_parameters
from tandem.protocol.backbones import CATALOGUE
from tandem.protocol.settings import HeadSettings
from tests.small_runs import NUM_CLASSES, small_settings
from train_keras import predict_batch, set_up_framework

# With ImageNet's 1,000 classes and batch norm's statistics: "Total params" in the summaries of Keras Applications.
PUBLISHED_PARAMETERS = {"mobilenet_v2": 3_538_984, "resnet50": 25_636_712, "densenet121": 8_062_504}


def build(num_classes: int = NUM_CLASSES, **changes: Any) -> Classifier:
    return build_classifier(small_settings(**changes), num_classes, (8, 8, 3))


def batch_norms(network: Classifier) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in network.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]


def some_images(number: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=CATALOGUE)
def imagenet_network(request: pytest.FixtureRequest) -> tuple[str, Classifier]:
    name = request.param
    return name, build(1000, backbone=name, image_size=CATALOGUE[name].min_image_size, batch_norm_momentum=0.75)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """The precision is global in Keras; float32 comes back after the test."""
    yield
    set_up_framework(small_settings(threads=None))


def test_backbone_has_the_published_number_of_parameters(imagenet_network: tuple[str, Classifier]) -> None:
    name, network = imagenet_network
    assert network.count_params() == PUBLISHED_PARAMETERS[name]
    statistics = sum(2 * layer.moving_mean.shape[0] for layer in batch_norms(network))
    assert count_parameters(network) == (PUBLISHED_PARAMETERS[name] - statistics,) * 2
    head = CATALOGUE[name].num_features * 1000 + 1000
    assert count_parameters(network)[0] - head == CATALOGUE[name].trainable_parameters["keras"]


def test_backbone_gives_one_vector_of_features_an_image(imagenet_network: tuple[str, Classifier]) -> None:
    name, network = imagenet_network
    features = network.backbone(network.pixels(some_images()), training=False)
    assert features.shape == (6, CATALOGUE[name].num_features)


def test_every_batch_norm_has_the_protocol_s_momentum(imagenet_network: tuple[str, Classifier]) -> None:
    _, network = imagenet_network
    assert len(batch_norms(network)) > 50
    assert {layer.momentum for layer in batch_norms(network)} == {0.75}


def test_without_a_momentum_each_network_keeps_its_own() -> None:
    assert {layer.momentum for layer in batch_norms(build(batch_norm_momentum=None))} == {0.999}


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_training_step_moves_the_running_mean_by_its_share(momentum: float) -> None:
    network = build(batch_norm_momentum=momentum)
    first = batch_norms(network)[0]
    before = keras.Model(network.backbone.input, first.input)
    inputs = keras.ops.convert_to_numpy(before(network.pixels(some_images())))
    network(some_images(), training=True)
    batch_mean = inputs.mean(axis=(0, 1, 2))
    assert np.abs(batch_mean).max() > 0.01
    assert keras.ops.convert_to_numpy(first.moving_mean) == pytest.approx((1 - momentum) * batch_mean, abs=1e-6)


def test_logits_are_float32_in_any_precision(any_precision: None) -> None:
    logits = {}
    weights = build(head=HeadSettings(hidden=[16])).get_weights()
    for precision in ("float32", "bfloat16"):
        set_up_framework(small_settings(threads=None, precision=precision))
        network = build(head=HeadSettings(hidden=[16]))
        network.set_weights(weights)
        assert {variable.dtype for variable in network.weights} == {"float32"}
        logits[precision] = predict_batch(network, some_images())
        assert (logits[precision].shape, logits[precision].dtype) == ((6, NUM_CLASSES), np.float32)
    assert not np.array_equal(logits["float32"], logits["bfloat16"])
    assert logits["bfloat16"] == pytest.approx(logits["float32"], abs=0.1)
