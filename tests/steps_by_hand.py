"""Training steps of a network of two linear layers, computed with numpy, for both frameworks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import EarlyStoppingSettings, OptimizerSettings, ScheduleSettings, Settings
from tandem.tracking.curves import Curves
from tests.oracles import softmax
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings

Weights = list[np.ndarray]
"""Kernel (pixels in the order height, width, channel; units) and bias of the backbone, then those of the head."""

RATE = 0.25
SGD = OptimizerSettings(name="sgd", momentum=0.75, layer_decay=0.5)

# Settings, and the rates of the head in each step.
CASES: dict[str, dict[str, Any]] = {
    "clipping": {"optimizer": dataclasses.replace(SGD, clip_norm=0.25)},
    "step schedule": {"schedule": ScheduleSettings(name="step", step_epochs=1, factor=0.25, warmup_epochs=1)},
    "one cycle": {"schedule": ScheduleSettings(name="one_cycle")},
    # 30 images: 2 steps of 3 passes of 4 images, and a step of a pass of 4 and one of 2
    "accumulation": {"batch_size": 12, "accumulate": 3},
    # a step of 3 passes of 8 images and one of 6
    "accumulation of whole epochs": {"batch_size": 40, "accumulate": 5},
    "averages": {"ema_decay": 0.8},
    "averages, accumulation, clipping, cosine": {
        "ema_decay": 0.7,
        "batch_size": 16,
        "accumulate": 2,
        "optimizer": dataclasses.replace(SGD, clip_norm=0.25),
        "schedule": ScheduleSettings(name="cosine"),
    },
}


def settings_of(case: str) -> Settings:
    defaults = {"optimizer": SGD, "early_stopping": EarlyStoppingSettings(patience=None, restore="last")}
    return small_settings(**{"regime": "finetune", "max_epochs": 3, "learning_rate": RATE, **defaults, **CASES[case]})


def first_weights() -> Weights:
    random = np.random.default_rng(3)
    shapes = [(8 * 8 * 3, 4), (4,), (4, NUM_CLASSES), (NUM_CLASSES,)]
    return [random.normal(scale=0.3, size=shape).astype(np.float32) for shape in shapes]


def gradient_of(weights: Weights, images: np.ndarray, labels: np.ndarray) -> Weights:
    """Gradient of the mean cross-entropy of images of shape (n, 8, 8, 3)."""
    kernel, bias, head_kernel, head_bias = weights
    pixels = images.reshape(len(images), -1) / 255
    features = pixels @ kernel + bias
    errors = (softmax(features @ head_kernel + head_bias) - np.eye(NUM_CLASSES)[labels]) / len(labels)
    into_features = errors @ head_kernel.T
    return [pixels.T @ into_features, into_features.sum(axis=0), features.T @ errors, errors.sum(axis=0)]


def rate_at(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The head's rate in a step of a schedule in CASES."""
    if settings.schedule.name == "step":  # the warm-up epoch, then a quarter after each epoch
        epoch = step // steps_per_epoch
        return RATE * ((step + 1) / steps_per_epoch if epoch == 0 else 0.25 ** (epoch - 1))
    if settings.schedule.name == "one_cycle":
        num_steps = settings.max_epochs * steps_per_epoch
        peak = 0.3 * num_steps - 1
        if step <= peak:
            return RATE * (1 + (1 / 25 - 1) * (1 + math.cos(math.pi * step / peak)) / 2)
        share = (step - peak) / (num_steps - 1 - peak)
        return RATE * (4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * share)) / 2)
    if settings.schedule.name == "cosine":
        return RATE * (1 + math.cos(math.pi * step / (settings.max_epochs * steps_per_epoch))) / 2
    return RATE


def trained_by_hand(settings: Settings, data: PreparedData) -> Weights:
    """The weights after all epochs of SGD, or their averages, in float64."""
    (phase,) = phases_of(settings)
    stream = training_stream(dataclasses.replace(settings, accumulate=1), data, phase)  # whole batches
    weights = [weight.astype(np.float64) for weight in first_weights()]
    velocities = [np.zeros_like(weight) for weight in weights]
    factors = [settings.optimizer.layer_decay] * 2 + [1.0] * 2
    after_steps = []
    for epoch in range(settings.max_epochs):
        batches = list(stream.epoch(epoch))
        for images, labels in batches:
            gradient = gradient_of(weights, images, labels)
            norm = np.sqrt(sum((part**2).sum() for part in gradient))
            if settings.optimizer.clip_norm is not None and norm > settings.optimizer.clip_norm:
                gradient = [part * settings.optimizer.clip_norm / norm for part in gradient]
            rate = rate_at(len(after_steps), len(batches), settings)
            for weight, velocity, part, factor in zip(weights, velocities, gradient, factors, strict=True):
                velocity *= settings.optimizer.momentum
                velocity += part
                weight -= rate * factor * velocity
            after_steps.append([weight.copy() for weight in weights])
    if settings.ema_decay is None:
        return weights
    shares = settings.ema_decay ** np.arange(len(after_steps))[::-1]
    return [np.average(values, axis=0, weights=shares) for values in zip(*after_steps, strict=True)]


def check_steps(
    case: str,
    framework: Framework,
    data: PreparedData,
    build: Callable[[Settings, Weights], Any],
    weights_of: Callable[[Any], Weights],
) -> None:
    """Fails unless a framework's training ends with the weights computed by hand, and the setting matters.

    Args:
        case: One of CASES.
        framework: Its script.
        data: Small.
        build: Makes the network with these weights.
        weights_of: Reads a network's weights.
    """
    settings = settings_of(case)
    if framework.package.backend() == "jax":
        settings = dataclasses.replace(settings, threads=None)  # cannot be limited
    framework.set_up(settings)
    network = build(settings, first_weights())
    framework.train_phase(network, phases_of(settings)[0], settings, data, Curves(RecordingRun(), quiet=True))  # type: ignore[arg-type]
    expected = trained_by_hand(settings, data)
    off = dataclasses.replace(
        settings, optimizer=SGD, schedule=ScheduleSettings(), batch_size=8, accumulate=1, ema_decay=None
    )
    without = trained_by_hand(off, data)
    assert min(np.abs(one - other).max() for one, other in zip(expected, without, strict=True)) > 1e-2
    for received, weight in zip(weights_of(network), expected, strict=True):
        np.testing.assert_allclose(received, weight, rtol=0, atol=2e-5)
