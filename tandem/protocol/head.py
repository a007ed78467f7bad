"""The head: dense layers behind the backbone's features, with the same initial weights in both frameworks."""

from __future__ import annotations

import itertools

import numpy as np

from tandem.protocol.settings import HeadSettings

BATCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's default; Keras's is 1e-3
BATCH_NORM_MOMENTUM = 0.9  # where the settings leave each network its own; torch's default too, Keras's is 0.99


def initial_kernels(head: HeadSettings, *, num_features: int, num_classes: int, seed: int) -> list[np.ndarray]:
    """The dense layers' initial kernels, of shape (inputs, units) and type float32; biases start at zero.

    Glorot's uniform distribution (Glorot and Bengio 2010, equation 16; Keras's default), or a normal one of the
    settings' deviation. Drawn by numpy, since the frameworks' own generators give other numbers for the same seed, and
    Keras's again others for each backend.
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
