"""Training with batch norm whose statistics stay as they are, computed with numpy, for both frameworks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import EarlyStoppingSettings, OptimizerSettings, Settings
from tandem.tracking.curves import Curves
from tests.oracles import softmax
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings

EPSILON = 1e-3
MEAN = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
VARIANCE = np.array([4.0, 0.5, 1.0, 9.0], np.float32)

Weights = list[np.ndarray]
"""Kernel (pixels in the order height, width, channel; units) and bias of a dense layer; scale and offset of the batch
norm after it; kernel and bias of the head."""

# Changes of the settings: a thawed backbone after a frozen one, at once, with averages, and in parts of batches.
CASES: dict[str, dict[str, Any]] = {
    "two_stage": {"regime": "two_stage"},
    "finetune": {"regime": "finetune"},
    "averages": {"regime": "finetune", "ema_decay": 0.8},
    "accumulation": {"regime": "finetune", "batch_size": 12, "accumulate": 3},
}


def settings_of(case: str) -> Settings:
    return small_settings(
        max_epochs=2,
        learning_rate=0.25,
        thawed_rate_factor=0.5,
        backbone_batch_norm="frozen",
        optimizer=OptimizerSettings(name="sgd", momentum=0.75),
        early_stopping=EarlyStoppingSettings(patience=None, restore="last"),
        **CASES[case],
    )


def first_weights() -> Weights:
    random = np.random.default_rng(3)
    shapes = [(8 * 8 * 3, 4), (4,), (4,), (4,), (4, NUM_CLASSES), (NUM_CLASSES,)]
    return [random.normal(scale=0.3, size=shape).astype(np.float32) for shape in shapes]


def gradient_of(weights: Weights, images: np.ndarray, labels: np.ndarray) -> Weights:
    """Gradient of the mean cross-entropy of images of shape (n, 8, 8, 3)."""
    kernel, bias, scale, offset, head_kernel, head_bias = weights
    pixels = images.reshape(len(images), -1) / 255
    deviation = np.sqrt(VARIANCE.astype(np.float64) + EPSILON)
    normal = (pixels @ kernel + bias - MEAN) / deviation
    features = normal * scale + offset
    errors = (softmax(features @ head_kernel + head_bias) - np.eye(NUM_CLASSES)[labels]) / len(labels)
    into_features = errors @ head_kernel.T
    into_normal = into_features * scale / deviation
    return [
        pixels.T @ into_normal,
        into_normal.sum(axis=0),
        (into_features * normal).sum(axis=0),
        into_features.sum(axis=0),
        features.T @ errors,
        errors.sum(axis=0),
    ]


def trained_by_hand(settings: Settings, data: PreparedData) -> Weights:
    """The weights after all phases, or their averages in the last one, in float64."""
    weights = [weight.astype(np.float64) for weight in first_weights()]
    after_steps: list[Weights] = []
    for phase in phases_of(settings):
        stream = training_stream(dataclasses.replace(settings, accumulate=1), data, phase)  # whole batches
        trained = range(4, 6) if phase.trainable == "head" else range(6)
        velocities = [np.zeros_like(weight) for weight in weights]
        for epoch in range(phase.max_epochs):
            for images, labels in stream.epoch(epoch):
                gradient = gradient_of(weights, images, labels)
                for index in trained:
                    velocities[index] = settings.optimizer.momentum * velocities[index] + gradient[index]
                    weights[index] = weights[index] - phase.learning_rate * velocities[index]
                after_steps.append(list(weights))
    if settings.ema_decay is None:
        return weights
    shares = settings.ema_decay ** np.arange(len(after_steps))[::-1]
    return [np.average(values, axis=0, weights=shares) for values in zip(*after_steps, strict=True)]


def check_training(
    case: str,
    framework: Framework,
    data: PreparedData,
    build: Callable[[Settings, Weights], Any],
    weights_of: Callable[[Any], tuple[Weights, Weights]],
) -> None:
    """Fails unless training ends with the weights computed by hand, and with the statistics that it began with.

    Args:
        case: One of CASES.
        framework: Its script.
        data: Small.
        build: Makes the network with these weights and with MEAN and VARIANCE.
        weights_of: Reads a network's weights, and mean and variance.
    """
    settings = settings_of(case)
    if framework.package.backend() == "jax":
        settings = dataclasses.replace(settings, threads=None)  # cannot be limited

    def train(settings: Settings) -> tuple[Weights, Weights]:
        framework.set_up(settings)
        network, curves = build(settings, first_weights()), Curves(RecordingRun(), quiet=True)  # type: ignore[arg-type]
        for phase in phases_of(settings):
            framework.train_phase(network, phase, settings, data, curves)
        return weights_of(network)

    weights, statistics = train(settings)
    assert [value.tobytes() for value in statistics] == [MEAN.tobytes(), VARIANCE.tobytes()]
    for first, received, expected in zip(first_weights(), weights, trained_by_hand(settings, data), strict=True):
        assert np.abs(expected - first).max() > 1e-2
        np.testing.assert_allclose(received, expected, rtol=0, atol=2e-5)
    others, moved = train(dataclasses.replace(settings, backbone_batch_norm="train"))
    assert all(np.abs(one - other).max() > 1e-2 for one, other in zip(moved, (MEAN, VARIANCE), strict=True))
    assert all(np.abs(one - other).max() > 1e-3 for one, other in zip(others, weights, strict=True))
