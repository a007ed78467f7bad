"""The head: dense layers after the backbone's features, with the same initial weights in both frameworks."""

from __future__ import annotations

import itertools

import numpy as np

from tandem.protocol.settings import HeadSettings

BATCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's default; Keras's is 1e-3
BATCH_NORM_MOMENTUM = 0.9  # if batch_norm_momentum is null; torch's default, too, while Keras's is 0.99


def initial_kernels(head: HeadSettings, *, num_features: int, num_classes: int, seed: int) -> list[np.ndarray]:
    """Draws the initial kernels of the dense layers; their biases start at zero.

    The distribution is Glorot's uniform one (Glorot and Bengio 2010, equation 16; Keras's default), or a normal one
    with the settings' standard deviation. numpy draws the numbers, since each framework, and each backend of Keras,
    gives other numbers for the same seed.

    Returns:
        float32 arrays of shape (inputs, units), one per layer.
    """
    generator = np.random.default_rng(seed)
    kernels = []
    for inputs, units in itertools.pairwise([num_features, *head.hidden, num_classes]):
        if head.initialization == "normal":
            kernel = generator.normal(0, head.normal_std, (inputs, units))
        else:
            limit = np.sqrt(6 / (inputs + units))
            kernel = generator.uniform(-limit, limit, (inputs, units))
        kernels.append(kernel.astype(np.float32))
    return kernels
