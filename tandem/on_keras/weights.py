"""Weights of a run: saved for later runs, and hashed to prove what changed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from tandem.files import whole_path
from tandem.on_keras.backbones import leaf_layers

if TYPE_CHECKING:
    from tandem.on_keras.networks import Classifier

BACKBONE_FILE = "backbone.weights.h5"
HEAD_FILE = "head.weights.h5"


def save_weights(classifier: Classifier, folder: Path) -> None:
    """Writes backbone.weights.h5 and head.weights.h5; the first can be the `weights` of later runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in ((classifier.backbone, BACKBONE_FILE), (classifier.head, HEAD_FILE)):
        with whole_path(folder / name) as partial:
            part.save_weights(partial)


def copy_weights(classifier: Classifier) -> list[np.ndarray]:
    """All weights and statistics, and the states of random generators, in the order of the network's variables."""
    return values_of(classifier.variables)


def restore_weights(classifier: Classifier, weights: Sequence[np.ndarray]) -> None:
    """Sets the network to copy_weights of the same network."""
    assign(classifier.variables, weights)


def values_of(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """The variables' values, copied."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Sets the variables to values_of these variables in another process."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def hash_weights(*layers: keras.layers.Layer) -> str:
    """SHA-256, in hex, of all weights of the layers or models, batch-norm statistics included."""
    digest = hashlib.sha256()
    for layer in layers:
        for variable in layer.weights:
            digest.update(variable.path.encode())
            digest.update(keras.ops.convert_to_numpy(variable.value).tobytes())
    return digest.hexdigest()


def batch_norm_statistics(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """Ids of the variables that hold means and variances of batch norm, which are not parameters."""
    return {
        id(variable)
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in (layer.moving_mean, layer.moving_variance)
    }


def count_parameters(classifier: Classifier) -> tuple[int, int]:
    """Number of parameters, all and trainable; batch-norm statistics do not count.

    Keras counts a frozen layer's parameters and its statistics alike as "non-trainable". Here all weights count except
    those that batch norm never trains.
    """
    statistics = batch_norm_statistics([*leaf_layers(classifier.backbone), *classifier.head.layers])
    everything = [v for part in (classifier.backbone, classifier.head) for v in part.weights if id(v) not in statistics]
    trainable = classifier.trainable_variables
    return sum(math.prod(v.shape) for v in everything), sum(math.prod(v.shape) for v in trainable)
