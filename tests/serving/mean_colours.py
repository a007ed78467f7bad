"""A network of a few lines of numpy, which MLflow loads by this module."""

from __future__ import annotations

import numpy as np


def mean_colours(images: np.ndarray) -> np.ndarray:
    """Probabilities of three classes from the mean red, green and blue of each image."""
    assert images.dtype == np.uint8 and images.ndim == 4
    exponentials = np.exp(images.mean(axis=(1, 2)) / 20)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


class MeanColours:
    def predict(self, model_input: np.ndarray) -> np.ndarray:
        return mean_colours(model_input)


def _load_pyfunc(path: str) -> MeanColours:
    return MeanColours()
