"""The head: dense layers behind the backbone's features, with the same initial weights in both frameworks."""

from __future__ import annotations

import itertools

import numpy as np

from tandem.protocol.settings import HeadSettings


def head_widths(head: HeadSettings, *, num_features: int, num_classes: int) -> list[int]:
    """Numbers of units from the features to the classes, both included."""
    return [num_features, *head.hidden, num_classes]


def initial_kernels(widths: list[int], seed: int) -> list[np.ndarray]:
    """The dense layers' initial kernels, of shape (inputs, units) and type float32; biases start at zero.

    Glorot's uniform distribution (Glorot and Bengio 2010, equation 16; Keras's default). Drawn by numpy, since the
    frameworks' own generators give other numbers for the same seed, and Keras's again others for each backend.
    """
    generator = np.random.default_rng(seed)
    kernels = []
    for inputs, units in itertools.pairwise(widths):
        limit = np.sqrt(6 / (inputs + units))
        kernels.append(generator.uniform(-limit, limit, (inputs, units)).astype(np.float32))
    return kernels
