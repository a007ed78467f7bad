"""torch's adaptive average pooling in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def adaptive_average_pool(features: Any, size: int) -> Any:
    """Means over size x size windows that cover all rows and columns, placed as in torch.nn.AdaptiveAvgPool2d.

    Args:
        features: Symbolic, of shape (n, rows, columns, channels), with as many rows as columns.
        size: Rows and columns of the result, of shape (n, size, size, channels).
    """
    # Not keras.layers.AdaptiveAveragePooling2D: in Keras 3.15 it gives NaN on JAX for 3, 6, 7 or 12 rows to 7.
    rows, columns = features.shape[1:3]
    if rows == columns == size:
        return features
    windows = np.zeros((size, rows), np.float32)
    for number in range(size):
        first, end = number * rows // size, -(-(number + 1) * rows // size)
        windows[number, first:end] = 1 / (end - first)
    # a tensor, since Keras on torch would copy an array to the device in each call
    on_device = keras.ops.convert_to_tensor(windows)
    return keras.ops.einsum("oh,pw,nhwc->nopc", on_device, on_device, features)
