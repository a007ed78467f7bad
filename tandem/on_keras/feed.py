"""Tandem's stream as what Keras iterates over."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tandem.data.stream import Stream


class StreamLoader(keras.utils.PyDataset):
    """Batches of uint8 images (b, height, width, 3) and int64 labels (b,) of the stream's epoch number `epoch`.

    fit has to be called with shuffle=False, or it shuffles the order of the batches, and with the callback
    CountEpochs: Keras calls on_epoch_begin and on_epoch_end also around a look at the first batches before training,
    so that they cannot count.

    A PyDataset serves all of Keras's backends; with no worker processes, TensorFlow reads ahead by itself.
    """

    def __init__(self, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.stream)

    def batch_of_each_size(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """One batch of each size that an epoch has, the largest first.

        Not of the first epoch, whose batches are hashed in the order in which they are served.
        """
        batches = [self.stream.batch(1, index) for index in sorted({0, len(self) - 1})]
        return list({len(labels): (images, labels) for images, labels in batches}.values())

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.stream.batch(self.epoch, index)


class CountEpochs(keras.callbacks.Callback):
    """Gives each epoch of a fit the stream's epoch of the same number."""

    def __init__(self, loader: StreamLoader) -> None:
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.loader.epoch = epoch
