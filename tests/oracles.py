"""Oracles in numpy for both frameworks, written from the papers and definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A pixel (red, green, blue) and its channels after each scaling, in the order of the network's input.
PIXEL = (255, 128, 0)
SCALED_PIXEL = {
    # (255 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225
    "torch": (2.2489083, 0.2051821, -1.8044444),
    # x / 127.5 - 1
    "tf": (1.0, 0.0039216, -1.0),
    # blue, green, red: 0 - 103.939, 128 - 116.779, 255 - 123.68
    "caffe": (-103.939, 11.221, 131.32),
    # x / 255
    "unit": (1.0, 0.5019608, 0.0),
}


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlarging with half-pixel centres, pixel by pixel; edges are repeated.

    Args:
        image: Of shape (height, width, channels).
        size: Height and width of the result.
    """
    height, width, channels = image.shape
    result = np.empty((size, size, channels))
    for row in range(size):
        y = (row + 0.5) * height / size - 0.5
        top, down = int(np.floor(y)), y - np.floor(y)
        upper, lower = max(top, 0), min(top + 1, height - 1)
        for column in range(size):
            x = (column + 0.5) * width / size - 0.5
            left, right = int(np.floor(x)), x - np.floor(x)
            first, second = max(left, 0), min(left + 1, width - 1)
            above = image[upper, first] * (1 - right) + image[upper, second] * right
            below = image[lower, first] * (1 - right) + image[lower, second] * right
            result[row, column] = above * (1 - down) + below * down
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, of logits of shape (n, classes)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the images of the negative logarithm of the true class's probability."""
    return float(-np.log(softmax(logits)[np.arange(len(labels)), labels]).mean())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """A dense layer and the batch norm before it."""

    scale: np.ndarray
    """Batch norm's, like shift, mean and variance of shape (inputs,)."""
    shift: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    kernel: np.ndarray
    """Of shape (inputs, units)."""
    bias: np.ndarray
    """Of shape (units,)."""


def random_head(widths: list[int]) -> list[HeadLayer]:
    """Layers from features to classes, with no number equal to 0 or 1."""
    generator = np.random.default_rng(3)

    def draw(*shape: int, above: float = -2.0) -> np.ndarray:
        return generator.uniform(above, 2, shape).astype(np.float32)

    return [
        HeadLayer(
            scale=draw(inputs),
            shift=draw(inputs),
            mean=draw(inputs),
            variance=draw(inputs, above=0.1),
            kernel=draw(inputs, units),
            bias=draw(units),
        )
        for inputs, units in itertools.pairwise(widths)
    ]


def head_logits(features: np.ndarray, layers: list[HeadLayer], *, epsilon: float, training: bool) -> np.ndarray:
    """Logits, float64, of features of shape (n, inputs): Ioffe and Szegedy 2015, algorithm 1, dense layer, ReLU.

    Args:
        training: Normalise with the batch's mean and (biased) variance instead of the layers'.
    """
    values = features.astype(np.float64)
    for number, layer in enumerate(layers):
        if number:
            values = np.maximum(values, 0)
        mean, variance = (values.mean(axis=0), values.var(axis=0)) if training else (layer.mean, layer.variance)
        values = (values - mean) / np.sqrt(variance + epsilon) * layer.scale + layer.shift
        values = values @ layer.kernel + layer.bias
    return values


def adam(
    weight: np.ndarray,
    gradients: list[np.ndarray],
    *,
    rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float = 0.0,
    epsilon_hat: bool = False,
) -> np.ndarray:
    """A weight after one step of Adam per gradient: Kingma and Ba 2015, algorithm 1.

    Args:
        weight_decay: Decoupled and times the rate: Loshchilov and Hutter 2019, algorithm 2.
        epsilon_hat: Add epsilon before correcting the second moment's bias: the other order of computation, at the end
            of Kingma and Ba's section 2.
    """
    weight = weight.astype(np.float64)
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        weight = weight - rate * weight_decay * weight
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        if epsilon_hat:
            corrected_rate = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
            weight = weight - corrected_rate * first / (np.sqrt(second) + epsilon)
        else:
            unbiased_first, unbiased_second = first / (1 - beta_1**step), second / (1 - beta_2**step)
            weight = weight - rate * unbiased_first / (np.sqrt(unbiased_second) + epsilon)
    return weight


def sgd(
    weight: np.ndarray,
    gradients: list[np.ndarray],
    *,
    rate: float | list[float],
    momentum: float,
    nesterov: bool,
    weight_decay: float = 0.0,
) -> np.ndarray:
    """A weight after one step of momentum SGD per gradient, the rate outside of the velocity: Goyal et al. 2017, eq. 9.

    With nesterov, in the variables of Sutskever et al. 2013, appendix A.1: the gradient is that of the weight after its
    jump.

    Args:
        rate: Of all steps, or a list with one per step.
        weight_decay: Decoupled and times the rate: Loshchilov and Hutter 2019, algorithm 1.
    """
    weight = weight.astype(np.float64)
    velocity = np.zeros_like(weight)
    rates = rate if isinstance(rate, list) else [rate] * len(gradients)
    for gradient, step_rate in zip(gradients, rates, strict=True):
        weight = weight - step_rate * weight_decay * weight
        velocity = momentum * velocity + gradient
        weight = weight - step_rate * (gradient + momentum * velocity if nesterov else velocity)
    return weight


def soft_cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the images of weight times cross-entropy, and its gradient by the logits.

    Args:
        logits: Of shape (n, classes).
        targets: Shares of the classes, of the same shape; they add up to 1.
        weights: Of shape (n,).
    """
    probabilities, targets = softmax(logits), targets.astype(np.float64)
    losses = -(targets * np.log(probabilities)).sum(axis=1)
    gradient = weights[:, np.newaxis] * (probabilities - targets) / len(logits)
    return float((weights * losses).mean()), gradient


def losses_of_gradient_descent(
    batches: Sequence[tuple[np.ndarray, ...]], kernel: np.ndarray, bias: np.ndarray, rates: Sequence[float]
) -> list[float]:
    """Cross-entropy of softmax regression before each step of plain gradient descent.

    Args:
        batches: Of each step: features of shape (b, features); labels of shape (b,) or shares of the classes, of shape
            (b, classes); and weights of shape (b,), if they are not all 1.
        kernel: Of shape (features, classes).
        bias: Of shape (classes,).
        rates: The learning rate of each step.
    """
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    losses = []
    for (features, targets, *weights), rate in zip(batches, rates, strict=True):
        shares = np.eye(len(bias))[targets] if targets.ndim == 1 else targets
        loss, errors = soft_cross_entropy(
            features @ kernel + bias, shares, weights[0] if weights else np.ones(len(targets))
        )
        losses.append(loss)
        kernel, bias = kernel - rate * features.T @ errors, bias - rate * errors.sum(axis=0)
    return losses


def _soft_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(11)
    logits = generator.normal(0, 3, (12, 5))
    shares = generator.dirichlet(np.full(5, 0.3), 12)
    # half of the images' answers are right
    shares[:6] = -np.sort(-shares[:6])[np.arange(6)[:, np.newaxis], np.argsort(np.argsort(-logits[:6]))]
    return tuple(part.astype(np.float32) for part in (logits, shares, generator.uniform(0.1, 4, 12)))  # type: ignore[return-value]


SOFT_BATCH = _soft_batch()
"""Logits and soft targets of shape (12, 5), and weights of shape (12,), float32."""
