"""Tandem's stream as an iterable of tensors, copied to a GPU ahead of time."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from tandem.data.console import with_bar
from tandem.data.stream import Batch, ShareOf, Stream

Tensors = tuple[Tensor, ...]
"""A batch of the stream as tensors."""

NUM_COPIED_AHEAD = 2  # batches on the GPU besides the current one


class StreamLoader:
    """The stream's batches: uint8 images (b, height, width, 3) and their targets; each pass is its next epoch.

    Lightning makes one iterator per epoch. The images are decoded already and the stream makes batches in a thread of
    its own, so a DataLoader and its worker processes would have nothing to do.
    """

    def __init__(self, stream: Stream, *, pin_memory: bool, share_of: ShareOf | None = None) -> None:
        """
        Args:
            stream: Makes the batches.
            pin_memory: Serve the batches on the GPU, copied there from pinned memory.
            share_of: This process's share of a batch; batches without an image for it are omitted. None for all images.
        """
        self.stream = stream
        self.pin_memory = pin_memory
        self.quiet = not stream.shuffles
        """True for no progress bar; validation has none."""
        self._share_of = share_of
        self.epoch = 0
        self._first_batch = 0

    begins_within_epochs = True

    def begin_at(self, epoch: int, batch: int) -> None:
        """Makes the next pass that of an epoch, from a batch on, both counted from 0."""
        self.epoch, self._first_batch = epoch, batch

    def __len__(self) -> int:
        return len(self.stream)

    def batch_of_each_size(self) -> list[Batch]:
        """One batch of each size that this process trains on."""
        return self.stream.batch_of_each_size()

    def __iter__(self) -> Iterator[Tensors]:
        # in a generator: Lightning makes iterators that it does not use, which must not count as epochs
        epoch, self.epoch = self.epoch, self.epoch + 1
        first, self._first_batch = self._first_batch, 0
        own = (batch for batch in self.stream.epoch(epoch, first, share_of=self._share_of) if len(batch[0]))
        batches = with_bar(own, title=f"epoch {epoch + 1}", total=len(self) - first, quiet=self.quiet)
        if self.pin_memory:
            yield from copied_ahead(batches, torch.device("cuda", torch.cuda.current_device()))
        else:
            for batch in batches:
                yield tuple(map(torch.from_numpy, batch))


def copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Tensors]:
    """Batches on a GPU, copied while it works on earlier ones.

    A copy runs beside computation only if it comes from pinned memory and runs in a CUDA stream of its own. Filling
    that memory in the training loop would take as long as the copy itself, so another thread fills it.
    """
    copying = _stream_for_copies(device)

    def copy(batch: Batch) -> tuple[Tensors, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(copying):
            parts = tuple(torch.from_numpy(part).pin_memory().to(device, non_blocking=True) for part in batch)
            copied = torch.cuda.Event()
            copied.record(copying)
        return parts, copied

    def arrived(task: Future[tuple[Tensors, torch.cuda.Event]]) -> Tensors:
        parts, copied = task.result()
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)
        for part in parts:
            part.record_stream(computing)  # otherwise the next copy could be given its memory before it is used
        return parts

    copier = ThreadPoolExecutor(1, thread_name_prefix="copy")
    waiting: deque[Future[tuple[Tensors, torch.cuda.Event]]] = deque()
    try:
        for batch in batches:
            waiting.append(copier.submit(copy, batch))
            if len(waiting) > NUM_COPIED_AHEAD:
                yield arrived(waiting.popleft())
        while waiting:
            yield arrived(waiting.popleft())
    finally:
        copier.shutdown(wait=False, cancel_futures=True)


@functools.cache
def _stream_for_copies(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream for all copies of this process: torch keeps freed memory for each stream that has used it."""
    return torch.cuda.Stream(device)
