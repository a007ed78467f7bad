"""Tandem's stream as what Keras iterates over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from tandem.data.stream import Batch, Stream


class StreamLoader(keras.utils.PyDataset):
    """Batches of uint8 images (b, height, width, 3) and int64 labels (b,) of the stream's epoch number `epoch`.

    fit has to be called with shuffle=False, or it shuffles the order of the batches, and with the callback
    CountEpochs: Keras calls on_epoch_begin and on_epoch_end also around a look at the first batches before training,
    so that they cannot count.

    A PyDataset serves all of Keras's backends. The stream makes batches ahead in threads of its own, for any of them;
    Keras's workers would be told neither the epoch nor when it ends. To a GPU, JAX copies a batch ahead.
    """

    def __init__(self, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.epoch = 0
        self._ahead: Iterator[Batch] = iter(())
        self._next = (-1, 0)  # epoch and index of the next batch that _ahead gives

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        if self._next != (self.epoch, index):
            self._ahead = self.stream.epoch(self.epoch, start=index)
        self._next = self.epoch, index + 1
        return next(self._ahead)


class CountEpochs(keras.callbacks.Callback):
    """Gives each epoch of a fit the stream's epoch of the same number."""

    def __init__(self, loader: StreamLoader) -> None:
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.loader.epoch = epoch
