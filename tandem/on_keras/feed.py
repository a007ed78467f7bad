"""Tandem's stream as a Keras data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from tandem.data.console import with_bar
from tandem.data.stream import Batch, Stream


class StreamLoader(keras.utils.PyDataset):
    """The stream's batches of epoch number `epoch`: uint8 images (b, height, width, 3) and their targets.

    Call fit with shuffle=False, or it shuffles the order of the batches, and with the callback CountEpochs: the loader
    cannot count epochs by on_epoch_begin and on_epoch_end, since Keras also calls these around a look at the first
    batches before training.

    A PyDataset serves all of Keras's backends. The stream makes batches ahead in threads of its own; Keras's workers
    would not know the epoch or its end. JAX copies a batch ahead to a GPU.
    """

    def __init__(self, stream: Stream, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream = stream
        self.epoch = 0
        self._first_batch = 0
        self._ahead: Iterator[Batch] = iter(())
        self._next = (-1, 0)  # epoch and index of the next batch in _ahead

    begins_within_epochs = True

    def begin_at(self, epoch: int, batch: int) -> None:
        """Makes the next pass that of an epoch, from a batch on, both counted from 0; its length is the rest's."""
        self.begin_epoch(epoch)
        self._first_batch = batch

    def begin_epoch(self, epoch: int) -> None:
        """Makes the next pass that of an epoch, counted from 0."""
        self.epoch, self._first_batch = epoch, 0

    def __len__(self) -> int:
        return len(self.stream) - self._first_batch

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        index += self._first_batch
        if self._next != (self.epoch, index):
            batches = self.stream.epoch(self.epoch, start=index)
            title, total = f"epoch {self.epoch + 1}", len(self) - index
            self._ahead = with_bar(batches, title=title, total=total, quiet=not self.stream.shuffles)
        self._next = self.epoch, index + 1
        return next(self._ahead)


class CountEpochs(keras.callbacks.Callback):
    """Serves the stream's epoch of the same number in each epoch of a fit."""

    def __init__(self, loader: StreamLoader) -> None:
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.loader.begin_epoch(epoch)
