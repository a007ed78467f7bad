"""Tandem's stream as what Keras iterates over."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tandem.data.stream import Stream


class StreamLoader(keras.utils.PyDataset):
    """Batches of uint8 images (b, height, width, 3) and int64 labels (b,); each pass is the stream's next epoch.

    A PyDataset serves all of Keras's backends; with no worker processes, TensorFlow reads ahead by itself.
    """

    def __init__(self, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.stream.batch(self.epoch, index)

    def on_epoch_end(self) -> None:
        self.epoch += 1
