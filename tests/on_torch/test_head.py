from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tandem.on_torch.head import build_head
from tandem.protocol.head import initial_kernels
from tandem.protocol.settings import HeadSettings
from tests.oracles import HeadLayer, head_logits, random_head
from tests.small_runs import NUM_CLASSES, assert_same_outputs, small_settings

NUM_FEATURES = 20
FEATURES = np.random.default_rng(0).normal(size=(6, NUM_FEATURES)).astype(np.float32)
WIDTHS = [NUM_FEATURES, 16, 8, NUM_CLASSES]


def build(*, seed: int = 0, batch_norm_momentum: float | None = 0.9, **head: Any) -> nn.Sequential:
    settings = small_settings(head=HeadSettings(**head), seed=seed, batch_norm_momentum=batch_norm_momentum)
    return build_head(settings, NUM_FEATURES, NUM_CLASSES)


def with_layers(head: nn.Sequential, layers: list[HeadLayer]) -> nn.Sequential:
    norms = [module for module in head if isinstance(module, nn.BatchNorm1d)]
    dense_layers = [module for module in head if isinstance(module, nn.Linear)]
    for norm, dense, layer in zip(norms, dense_layers, layers, strict=True):
        norm.load_state_dict(
            {
                "weight": torch.from_numpy(layer.scale),
                "bias": torch.from_numpy(layer.shift),
                "running_mean": torch.from_numpy(layer.mean),
                "running_var": torch.from_numpy(layer.variance),
                "num_batches_tracked": torch.tensor(0),
            }
        )
        dense.load_state_dict({"weight": torch.from_numpy(layer.kernel.T), "bias": torch.from_numpy(layer.bias)})
    return head


def logits_of(head: nn.Sequential) -> np.ndarray:
    with torch.no_grad():
        return head(torch.from_numpy(FEATURES)).numpy()


def test_batch_norm_and_dropout_precede_each_dense_layer_with_relu_between() -> None:
    head = build(hidden=[16, 8], dropout=0.25, batch_norm=True)
    kinds = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU] * 3
    assert [type(layer) for layer in head] == kinds[:-1]
    assert {layer.p for layer in head if isinstance(layer, nn.Dropout)} == {0.25}


@pytest.mark.parametrize(("option", "kind"), [({"dropout": 0.5}, nn.Dropout), ({"batch_norm": True}, nn.BatchNorm1d)])
def test_dropout_and_batch_norm_can_be_used_separately(option: dict[str, Any], kind: type[nn.Module]) -> None:
    assert [type(layer) for layer in build(**option)] == [kind, nn.Linear]


def test_head_without_hidden_layers_is_one_dense_layer() -> None:
    assert [type(layer) for layer in build()] == [nn.Linear]


@pytest.mark.parametrize("initialization", ["glorot_uniform", "normal"])
def test_head_starts_with_the_protocol_s_weights(initialization: Any) -> None:
    settings = HeadSettings(hidden=[16, 8], initialization=initialization, batch_norm=True)
    head = build(seed=7, hidden=[16, 8], initialization=initialization, batch_norm=True)
    dense = [layer for layer in head if isinstance(layer, nn.Linear)]
    expected = initial_kernels(settings, num_features=NUM_FEATURES, num_classes=NUM_CLASSES, seed=7)
    for layer, kernel in zip(dense, expected, strict=True):
        assert np.array_equal(layer.weight.detach().numpy().T, kernel)
        assert not layer.bias.detach().numpy().any()


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_head_agrees_with_numpy(training: bool) -> None:
    layers = random_head(WIDTHS)
    head = with_layers(build(hidden=[16, 8], batch_norm=True), layers)
    expected = head_logits(FEATURES, layers, epsilon=1e-5, training=training)
    assert_same_outputs(logits_of(head.train(training)), expected, atol=1e-3)


def test_dropout_is_off_in_inference() -> None:
    layers = random_head(WIDTHS)
    head = with_layers(build(hidden=[16, 8], batch_norm=True, dropout=0.5), layers).eval()
    assert_same_outputs(logits_of(head), head_logits(FEATURES, layers, epsilon=1e-5, training=False), atol=1e-3)
    head.train()
    assert not np.allclose(logits_of(head), logits_of(head))


@pytest.mark.parametrize(("momentum", "kept"), [(0.75, 0.75), (None, 0.9)])
def test_batch_norm_keeps_the_momentum_s_share_of_its_statistics(momentum: float | None, kept: float) -> None:
    (layer,) = random_head([NUM_FEATURES, NUM_CLASSES])
    head = with_layers(build(batch_norm=True, batch_norm_momentum=momentum), [layer])
    logits_of(head.train())
    norm = head[0]
    assert norm.running_mean.numpy() == pytest.approx(kept * layer.mean + (1 - kept) * FEATURES.mean(axis=0), abs=1e-6)
    # torch divides by one less than the number of images, Keras by their number
    expected = kept * layer.variance + (1 - kept) * FEATURES.var(axis=0, ddof=1)
    assert norm.running_var.numpy() == pytest.approx(expected, abs=1e-6)
