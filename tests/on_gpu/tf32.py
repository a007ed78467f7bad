"""Errors of products and convolutions with and without TF32, against float64.

    KERAS_BACKEND=jax python -c "from tests.on_gpu.tf32 import main; main()" jax True

The first word is `bare torch`, for the flags of train_torch.py, or a backend of Keras, for those of train_keras.py.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from tandem.protocol.settings import AccelerationSettings


def main() -> None:
    name, tf32 = sys.argv[1], sys.argv[2] == "True"
    random = np.random.default_rng(0)
    left, right = (random.normal(size=(1024, 1024)).astype(np.float32) for _ in range(2))
    images = random.normal(size=(4, 32, 32, 64)).astype(np.float32)
    kernel = random.normal(size=(1, 1, 64, 64)).astype(np.float32)  # a product of matrices in float64
    settings = AccelerationSettings(tf32=tf32, cudnn_autotune=False)
    if name == "bare torch":
        import torch
        from torch.nn import functional

        from tandem.on_torch import set_flags

        set_flags(settings)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        product = (torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device)).cpu().numpy()
        channels_first = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        weights = torch.from_numpy(kernel).to(device).permute(3, 2, 0, 1)
        convolved = functional.conv2d(channels_first, weights).permute(0, 2, 3, 1).cpu().numpy()
    else:
        import keras

        from tandem.on_keras import set_flags as set_keras_flags

        set_keras_flags(settings)
        product = keras.ops.convert_to_numpy(keras.ops.matmul(left, right))
        convolved = keras.ops.convert_to_numpy(keras.ops.conv(images, kernel, data_format="channels_last"))
    expected = left.astype(np.float64) @ right.astype(np.float64)
    expected_convolved = images.astype(np.float64) @ kernel[0, 0].astype(np.float64)
    errors = {
        "product": relative_error(product, expected),
        "convolution": relative_error(convolved, expected_convolved),
    }
    print(json.dumps(errors))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm of the expected values."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
