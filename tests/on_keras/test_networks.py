from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.networks import Classifier, build_classifier
from tandem.protocol.settings import HeadSettings
from tests.small_runs import NUM_CLASSES, small_settings
from train_keras import predict_batch, set_up_framework


def build(num_classes: int = NUM_CLASSES, **changes: Any) -> Classifier:
    return build_classifier(small_settings(**changes), num_classes, (8, 8, 3))


def batch_norms(network: Classifier) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in network.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]


def some_images(number: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """The precision is global in Keras; float32 comes back after the test."""
    yield
    set_up_framework(small_settings(threads=None))


@pytest.mark.parametrize("name", ["mobilenet_v2", pytest.param("efficientnet_b0", marks=pytest.mark.long)])
def test_every_batch_norm_has_the_protocol_s_momentum(name: str) -> None:
    network = build(backbone=name, batch_norm_momentum=0.75)
    assert len(batch_norms(network)) > 40
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
