"""Tandem's stream as what Lightning iterates over."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tandem.data.stream import Stream


class StreamLoader:
    """Batches of uint8 images (b, height, width, 3) and int64 labels (b,); each pass is the stream's next epoch.

    Lightning makes one iterator an epoch. Decoding is long done and the batches come from the stream's own thread, so
    there is nothing for a DataLoader and its worker processes to do.
    """

    def __init__(self, stream: Stream, *, pin_memory: bool) -> None:
        self.stream = stream
        self.pin_memory = pin_memory
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for images, labels in self.stream.epoch(epoch):
            batch = torch.from_numpy(images), torch.from_numpy(labels)
            yield (batch[0].pin_memory(), batch[1].pin_memory()) if self.pin_memory else batch
