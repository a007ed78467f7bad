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

    def batch_of_each_size(self) -> list[tuple[Tensor, Tensor]]:
        """One batch of each size that an epoch has, the largest first.

        Not of the first epoch, whose batches are hashed in the order in which they are served.
        """
        batches = [self.stream.batch(1, index) for index in sorted({0, len(self) - 1})]
        by_size = {len(labels): (torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in batches}
        return list(by_size.values())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for images, labels in self.stream.epoch(epoch):
            batch = torch.from_numpy(images), torch.from_numpy(labels)
            yield (batch[0].pin_memory(), batch[1].pin_memory()) if self.pin_memory else batch
