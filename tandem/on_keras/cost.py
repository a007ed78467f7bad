"""What a network costs in Keras: multiply-accumulates and memory of the GPU."""

from __future__ import annotations

import math

import keras

from tandem.on_keras.networks import Classifier


def count_macs(classifier: Classifier) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image.

    Counted from the layers' shapes; biases, batch norm and activations are left out.
    """
    total = 0
    for layer in [*classifier.backbone.layers, *classifier.head.layers]:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, channels, multiplier = layer.kernel.shape
            total += _positions(layer) * height * width * channels * multiplier
        elif isinstance(layer, keras.layers.Conv2D):
            total += _positions(layer) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def _positions(layer: keras.layers.Layer) -> int:
    _, height, width, _ = layer.output.shape
    return height * width


def peak_gpu_memory_megabytes() -> float:
    """The most that the backend has held on the GPU since the process began; 0 without one."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    elif backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "gpu":
            return device.memory_stats()["peak_bytes_in_use"] / 1e6
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
    return 0.0
