from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.networks import Classifier, Pixels, build_classifier
from tandem.protocol.settings import HeadSettings
from tests.small_runs import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    assert_same_outputs,
    random_images,
    small_settings,
    tell_images_apart,
)
from train_keras import predict_batch, set_up_framework


def build(num_classes: int = NUM_CLASSES, **changes: Any) -> Classifier:
    return build_classifier(small_settings(**changes), num_classes)


def batch_norms(network: Classifier) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in network.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]


def shallow_network() -> Classifier:
    """A network of one convolution: in MobileNetV2 with random weights, rounding to bfloat16 grows up to the logits."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(16, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    backbone = keras.Sequential([keras.Input(IMAGE_SHAPE), *layers, keras.layers.GlobalAveragePooling2D()])
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(NUM_CLASSES, dtype="float32")])
    network = Classifier(Pixels(8, "unit"), backbone, head)
    network(random_images(2))
    return network


@pytest.fixture
def any_precision() -> Iterator[None]:
    """Restores float32 after the test, since precision is global in Keras."""
    yield
    set_up_framework(small_settings(threads=None))


@pytest.mark.parametrize("name", ["mobilenet_v2", pytest.param("efficientnet_b0", marks=pytest.mark.long)])
def test_every_batch_norm_has_the_momentum_of_the_settings(name: str) -> None:
    network = build(backbone=name, batch_norm_momentum=0.75)
    assert len(batch_norms(network)) > 40
    assert {layer.momentum for layer in batch_norms(network)} == {0.75}


def test_without_a_momentum_each_network_keeps_its_own() -> None:
    assert {layer.momentum for layer in batch_norms(build(batch_norm_momentum=None))} == {0.999}


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_training_step_changes_the_running_mean_by_the_momentum(momentum: float) -> None:
    network = build(batch_norm_momentum=momentum)
    first = batch_norms(network)[0]
    before = keras.Model(network.backbone.input, first.input)
    inputs = keras.ops.convert_to_numpy(before(network.pixels(random_images(6))))
    network(random_images(6), training=True)
    batch_mean = inputs.mean(axis=(0, 1, 2))
    assert np.abs(batch_mean).max() > 0.01
    assert keras.ops.convert_to_numpy(first.moving_mean) == pytest.approx((1 - momentum) * batch_mean, abs=1e-6)


def test_logits_are_float32_in_any_precision(any_precision: None) -> None:
    logits = {}
    weights = tell_images_apart(shallow_network()).get_weights()
    for precision in ("float32", "bfloat16"):
        set_up_framework(small_settings(threads=None, precision=precision))
        network = shallow_network()
        network.set_weights(weights)
        assert {variable.dtype for variable in network.weights} == {"float32"}
        logits[precision] = predict_batch(network, small_settings(), random_images(6))
        assert (logits[precision].shape, logits[precision].dtype) == ((6, NUM_CLASSES), np.float32)
    assert not np.array_equal(logits["float32"], logits["bfloat16"])
    # bfloat16 has 8 bits of mantissa
    assert_same_outputs(logits["bfloat16"], logits["float32"], atol=0.05, margin=10)


def test_head_computes_in_float32_in_any_precision(any_precision: None) -> None:
    features = np.random.default_rng(0).normal(size=(6, 1280)).astype(np.float32)
    logits = []
    for precision in ("float32", "bfloat16"):
        set_up_framework(small_settings(threads=None, precision=precision))
        network = build(head=HeadSettings(hidden=[16], batch_norm=True, dropout=0.5))
        assert network.backbone.output.dtype == precision
        assert [layer.compute_dtype for layer in network.head.layers] == ["float32"] * 6
        logits.append(keras.ops.convert_to_numpy(network.head(features)))
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-6)
