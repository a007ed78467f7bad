from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.head import build_head
from tandem.protocol.head import initial_kernels
from tandem.protocol.settings import HeadSettings
from tests.oracles import HeadLayer, head_logits, random_head
from tests.small_runs import NUM_CLASSES, assert_same_outputs, small_settings

NUM_FEATURES = 20
FEATURES = np.random.default_rng(0).normal(size=(6, NUM_FEATURES)).astype(np.float32)
WIDTHS = [NUM_FEATURES, 16, 8, NUM_CLASSES]


def build(*, seed: int = 0, batch_norm_momentum: float | None = 0.9, **head: Any) -> keras.Sequential:
    settings = small_settings(head=HeadSettings(**head), seed=seed, batch_norm_momentum=batch_norm_momentum)
    return build_head(settings, NUM_FEATURES, NUM_CLASSES)


def with_layers(head: keras.Sequential, layers: list[HeadLayer]) -> keras.Sequential:
    norms = [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
    dense_layers = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    for norm, dense, layer in zip(norms, dense_layers, layers, strict=True):
        norm.set_weights([layer.scale, layer.shift, layer.mean, layer.variance])
        dense.set_weights([layer.kernel, layer.bias])
    return head


def logits_of(head: keras.Sequential, *, training: bool) -> np.ndarray:
    return keras.ops.convert_to_numpy(head(FEATURES, training=training))


def test_batch_norm_and_dropout_precede_each_dense_layer_with_relu_between() -> None:
    head = build(hidden=[16, 8], dropout=0.25, batch_norm=True)
    # a dense layer includes its ReLU
    kinds = [keras.layers.BatchNormalization, keras.layers.Dropout, keras.layers.Dense] * 3
    assert [type(layer) for layer in head.layers] == kinds
    assert {layer.rate for layer in head.layers if isinstance(layer, keras.layers.Dropout)} == {0.25}
    activations = [layer.activation.__name__ for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    assert activations == ["relu", "relu", "linear"]


@pytest.mark.parametrize(
    ("option", "kind"),
    [({"dropout": 0.5}, keras.layers.Dropout), ({"batch_norm": True}, keras.layers.BatchNormalization)],
)
def test_dropout_and_batch_norm_can_be_used_separately(option: dict[str, Any], kind: type[keras.layers.Layer]) -> None:
    assert [type(layer) for layer in build(**option).layers] == [kind, keras.layers.Dense]


def test_head_without_hidden_layers_is_one_dense_layer() -> None:
    assert [type(layer) for layer in build().layers] == [keras.layers.Dense]


@pytest.mark.parametrize("initialization", ["glorot_uniform", "normal"])
def test_head_starts_with_the_protocol_s_weights(initialization: Any) -> None:
    settings = HeadSettings(hidden=[16, 8], initialization=initialization, batch_norm=True)
    head = build(seed=7, hidden=[16, 8], initialization=initialization, batch_norm=True)
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    expected = initial_kernels(settings, num_features=NUM_FEATURES, num_classes=NUM_CLASSES, seed=7)
    for layer, expected_kernel in zip(dense, expected, strict=True):
        kernel, bias = layer.get_weights()
        assert np.array_equal(kernel, expected_kernel)
        assert not bias.any()


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_head_agrees_with_numpy(training: bool) -> None:
    layers = random_head(WIDTHS)
    head = with_layers(build(hidden=[16, 8], batch_norm=True), layers)
    expected = head_logits(FEATURES, layers, epsilon=1e-5, training=training)
    assert_same_outputs(logits_of(head, training=training), expected, atol=1e-3)


def test_dropout_is_off_in_inference() -> None:
    layers = random_head(WIDTHS)
    head = with_layers(build(hidden=[16, 8], batch_norm=True, dropout=0.5), layers)
    expected = head_logits(FEATURES, layers, epsilon=1e-5, training=False)
    assert_same_outputs(logits_of(head, training=False), expected, atol=1e-3)
    assert not np.allclose(logits_of(head, training=True), logits_of(head, training=True))


@pytest.mark.parametrize(("momentum", "kept"), [(0.75, 0.75), (None, 0.9)])
def test_batch_norm_keeps_the_momentum_s_share_of_its_statistics(momentum: float | None, kept: float) -> None:
    (layer,) = random_head([NUM_FEATURES, NUM_CLASSES])
    head = with_layers(build(batch_norm=True, batch_norm_momentum=momentum), [layer])
    logits_of(head, training=True)
    mean, variance = (
        keras.ops.convert_to_numpy(value) for value in (head.layers[0].moving_mean, head.layers[0].moving_variance)
    )
    assert mean == pytest.approx(kept * layer.mean + (1 - kept) * FEATURES.mean(axis=0), abs=1e-6)
    # torch divides by one less than the number of images, Keras by their number
    assert variance == pytest.approx(kept * layer.variance + (1 - kept) * FEATURES.var(axis=0), abs=1e-6)
