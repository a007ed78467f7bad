from __future__ import annotations

import keras
import numpy as np

from tandem.on_keras.pooling import adaptive_average_pool


def test_adaptive_pooling_covers_all_rows_with_overlapping_windows() -> None:
    # torch.nn.AdaptiveAvgPool2d: window i is from floor(i rows / size) to ceil((i + 1) rows / size)
    images = keras.Input((3, 3, 1))
    pool = keras.Model(images, adaptive_average_pool(images, 2))
    values = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    pooled = keras.ops.convert_to_numpy(pool(values))
    np.testing.assert_allclose(pooled[0, :, :, 0], [[2, 3], [5, 6]])


def test_adaptive_pooling_repeats_small_maps() -> None:
    images = keras.Input((1, 1, 2))
    pooled = keras.Model(images, adaptive_average_pool(images, 6))(np.full((1, 1, 1, 2), 3, np.float32))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(pooled), np.full((1, 6, 6, 2), 3))
