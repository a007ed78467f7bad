from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tandem.on_torch.networks import Classifier, Pixels, build_classifier
from tandem.protocol.settings import HeadSettings
from tests.small_runs import NUM_CLASSES, assert_same_outputs, random_images, small_settings, tell_images_apart
from train_torch import predict_batch


def build(num_classes: int = NUM_CLASSES, **changes: Any) -> Classifier:
    return build_classifier(small_settings(**changes), num_classes)


def batch_norms(network: Classifier) -> list[nn.BatchNorm2d]:
    return [module for module in network.backbone.modules() if isinstance(module, nn.BatchNorm2d)]


def shallow_network() -> Classifier:
    """A network of one convolution: in MobileNetV2 with random weights, rounding to bfloat16 grows up to the logits."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Classifier(Pixels(8, "unit"), nn.Sequential(*layers), nn.Sequential(nn.Linear(16, NUM_CLASSES)))


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_v2", "efficientnet_v2_b0"])
def test_every_batch_norm_has_the_momentum_of_the_settings(name: str) -> None:
    network = build(backbone=name, batch_norm_momentum=0.75)
    assert len(batch_norms(network)) > 40
    assert {module.momentum for module in batch_norms(network)} == {1 - 0.75}


def test_without_a_momentum_each_network_keeps_its_own() -> None:
    assert {module.momentum for module in batch_norms(build(batch_norm_momentum=None))} == {0.1}


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_training_step_changes_the_running_mean_by_the_momentum(momentum: float) -> None:
    network = build(batch_norm_momentum=momentum)
    first = batch_norms(network)[0]
    inputs: list[np.ndarray] = []
    first.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach().numpy()))
    network.train()(torch.from_numpy(random_images(6)))
    batch_mean = inputs[0].mean(axis=(0, 2, 3))
    assert np.abs(batch_mean).max() > 0.01
    assert first.running_mean is not None
    assert first.running_mean.numpy() == pytest.approx((1 - momentum) * batch_mean, abs=1e-6)


def test_logits_are_float32_in_any_precision() -> None:
    network = tell_images_apart(shallow_network())
    exact = predict_batch(network, small_settings(), random_images(6))
    rounded = predict_batch(network, small_settings(precision="bfloat16"), random_images(6))
    for logits in (exact, rounded):
        assert (logits.shape, logits.dtype) == ((6, NUM_CLASSES), np.float32)
    assert not np.array_equal(exact, rounded)
    # bfloat16 has 8 bits of mantissa
    assert_same_outputs(rounded, exact, atol=0.05, margin=10)


def test_head_computes_in_float32_in_any_precision() -> None:
    network = tell_images_apart(build(head=HeadSettings(hidden=[16], batch_norm=True)))
    features: list[torch.Tensor] = []
    dtypes: list[torch.dtype] = []
    network.backbone.register_forward_hook(lambda _, __, output: features.append(output))
    for layer in network.head.children():
        layer.register_forward_hook(lambda _, inputs, output: dtypes.extend([inputs[0].dtype, output.dtype]))
    logits = predict_batch(network, small_settings(precision="bfloat16"), random_images(6))
    assert features[0].dtype == torch.bfloat16
    assert len(dtypes) == 2 * 5 and set(dtypes) == {torch.float32}
    with torch.inference_mode():
        assert_same_outputs(logits, network.head(features[0].float()).numpy(), atol=0.0)
